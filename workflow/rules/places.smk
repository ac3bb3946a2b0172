# What shifts and regimes look up: where an SAE was trained, and where a row judges it.


def home(wildcards):
    """Where an SAE was trained, with all corpora that it is judged on there."""
    return EvaluationTarget(wildcards.model, wildcards.hook, 1.0, ROLES[sae_row(wildcards).sae_id])


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
