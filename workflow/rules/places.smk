# What shifts and regimes look up: where an SAE is at home, where a row judges it, rows that provoke a regime.
import re

# Studies that provoke regimes: at least one row says which.
PROVOKED = [name for name, rows in STUDIES.items() if any(row.intended for row in rows)]
REGIME_STUDIES = "|".join(map(re.escape, PROVOKED)) or "(?!)"
# Studies that ask what becomes of an SAE away from home. Those that provoke regimes do so to see it fail.
SHIFTING = [name for name, rows in STUDIES.items() if any(row.shift for row in rows) and name not in PROVOKED]

# Studies that train an SAE: those of published ones alone have no curves.
TRAINING = [name for name, rows in STUDIES.items() if any(row.published is None for row in rows)]


def home(wildcards):
    """Where an SAE was trained, with all corpora that it is judged on there."""
    return Place(wildcards.model, wildcards.hook, 1.0, ROLES[sae_row(wildcards).sae_id])


def away(wildcards):
    """Where an SAE is judged under the shift of the wildcards."""
    judged_id = f"{sae_row(wildcards).sae_id}/{wildcards.shift}"
    if judged_id not in AWAY:
        raise WorkflowError(f"{judged_id} is a row of no study; there are: {', '.join(AWAY) or 'none'}")
    return AWAY[judged_id]


def counterparts(wildcards):
    """Corpora judged at home, and what is judged in the place of each under the shift of the wildcards."""
    shifted = f"{sae_row(wildcards).sae_id}/{wildcards.shift}"
    rows = [row for row in ROWS if row.judged_id == shifted]
    return {corpus: other for row in rows for corpus, other in zip(row.roles, row.judged.roles, strict=True)}


def judged_place(wildcards):
    """Where an SAE is judged: at home, or under the shift that its job has."""
    return home(wildcards) if getattr(wildcards, "shift", HOME) == HOME else away(wildcards)


def regime_rows(wildcards):
    """Rows of a study that provoke a regime."""
    return [row for row in study_rows(wildcards) if row.intended]


def shifted_rows(wildcards):
    """Rows of a study that are judged away from home."""
    return [row for row in study_rows(wildcards) if row.shift]


def drawn(study):
    """Figures and tables of a study that can have them.

    Health is that of SAEs judged at home on text, stability needs a second seed, and labels are drawn of studies whose pages
    show them, and in the width figure of grids: the others would have to be labelled for it.
    """
    rows = STUDIES[study]
    figures = ["", *(["_training"] if study in TRAINING else []), *(["_width"] if study in GRIDS else [])]
    tables = [f"tables/{study}.md", f"run_cards/{study}.html"]
    if any(row.shift is None for row in rows) and study not in PLANTED_STUDIES:
        figures.append("_health")
        tables.append(f"{study}_health.csv")
    dictionaries = {Path(sae).parent for sae in saes_of(study)}
    if len(dictionaries) < len(saes_of(study)):
        figures.append("_stability")
        tables.append(f"{study}_stability.csv")
    if study in SITE_STUDIES and CONFIG.site.labels:
        figures.append("_autointerp")
        tables.append(f"{study}_autointerp.csv")
    return [f"results/{table}" for table in tables] + [f"results/figures/{study}{figure}.pdf" for figure in figures]
