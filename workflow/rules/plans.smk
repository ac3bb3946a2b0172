# What rules of measures look up: a study as its measures see it, and what is made of it.
from atlas.config.plan import SaePlan, StudyPlan

# Studies that train an SAE: those of published ones alone have no curves.
TRAINING = [name for name, rows in STUDIES.items() if any(row.published is None for row in rows)]


@cache
def plan_of(study):
    """A study as its measures see it."""
    return StudyPlan(study, STUDIES[study], CONFIG, TWINS.get(study, {}))


def of_study(finds):
    """Input or params function that asks a measure about the study of the wildcards; of a mapping, one for each name."""
    if isinstance(finds, dict):
        return {name: of_study(each) for name, each in finds.items()}

    def found(wildcards):
        study_rows(wildcards)
        return or_error(finds, plan_of(wildcards.study))

    return found


@cache
def sae_plan_of(sae_id):
    """An SAE as stages of measures see it."""
    twins = TWINNED.get(sae_id, {})
    return SaePlan(SAES[sae_id], ROLES[sae_id], twins, CONFIG, STORE, RESULTS, source_input)


def of_sae(finds):
    """Input or params function that asks a stage about the SAE of the wildcards; of a mapping, one for each name."""
    if isinstance(finds, dict):
        return {name: of_sae(each) for name, each in finds.items()}
    return lambda wildcards: or_error(finds, sae_plan_of(sae_row(wildcards).sae_id))


def noted(described, asks):
    """Param with what a dry run says of a job, if a measure or stage says something; `asks` is of_study or of_sae."""
    return {NOTE: asks(described.note)} if described.note else {}


def announced(measure):
    """Message of the rule that writes a measure's tables."""
    tables = " and ".join(measure.tables.values()).replace("{", "{wildcards.")
    return f"Writing {tables}" + ("; {params.note}" if measure.note else "")


def only(names):
    """A pattern of these names; one that matches nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def studies_of(measure):
    """A pattern of the studies that can have a measure."""
    return STUDY if measure.studies is None else only(name for name in STUDIES if measure.studies(plan_of(name)))


def measured(study):
    """Tables and figures of measures that a plain `snakemake` makes of a study."""
    chosen = [each for each in measures() if each.in_all and each.in_all(plan_of(study))]
    files = [path for each in chosen for path in (next(iter(each.tables.values())), *each.figure_files[:2])]
    return [path.format(study=study) for path in files]


def drawn(study):
    """Figures and tables of a study that can have them, for `snakemake figures`."""
    files = ["results/tables/{study}.md", "results/run_cards/{study}.html", "results/figures/{study}.pdf"]
    files += ["results/figures/{study}_training.pdf"] if study in TRAINING else []
    files += ["results/figures/{study}_width.pdf"] if study in GRIDS else []
    for each in measures():
        if each.figure and each.figure.drawn and each.figure.drawn(plan_of(study)):
            files += [path for path in each.tables.values() if path.endswith(".csv")] + each.figure_files[:1]
    return [path.format(study=study) for path in files]
