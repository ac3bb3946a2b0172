# What the rules of planted models look up: which models and corpora are drawn, and the studies that judge recovery.
import re

PLANTED_MODELS = [name for name, model in CONFIG.models.items() if model.is_planted]
PLANTED_CORPORA = [name for name, corpus in CONFIG.corpora.items() if corpus.is_planted]
PLANTED_STUDIES = [study for study, rows in STUDIES.items() if any(row.model in PLANTED_MODELS for row in rows)]
# (?!) matches none.
ONLY_PLANTED_MODELS = "|".join(map(re.escape, PLANTED_MODELS)) or "(?!)"
ONLY_PLANTED_CORPORA = "|".join(map(re.escape, PLANTED_CORPORA)) or "(?!)"
ONLY_PLANTED_STUDIES = "|".join(map(re.escape, PLANTED_STUDIES)) or "(?!)"


def text_of(corpus, name):
    """A file of a corpus' text; a planted corpus has none."""
    if corpus in PLANTED_CORPORA:
        raise WorkflowError(
            f"corpus {corpus!r} is planted: its rows are drawn, there is no text, hence no {name}; of a planted study "
            "there are results/<study>.csv, <study>_runs.csv, <study>_recovery.csv, <study>_verdicts.csv and figures"
        )
    return f"results/corpora/{corpus}/{name}"


def references_of(model, corpora):
    """Reference losses of a model on corpora; a planted one has no losses."""
    return [] if model in PLANTED_MODELS else [f"results/references/{model}/{corpus}.h5" for corpus in corpora]


def planted_study(wildcards):
    """Rows of a study whose truth is known; all of them must be of planted models."""
    rows = study_rows(wildcards)
    if others := [row.sae_id for row in rows if row.model not in PLANTED_MODELS]:
        raise WorkflowError(f"{others[0]} has no planted truth, so that {wildcards.study}_recovery.csv cannot be made")
    return rows
