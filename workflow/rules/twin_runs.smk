# What twins look up: studies that have them, and the files of later stages in which their measures are.
import re

TWIN_STUDIES = "|".join(map(re.escape, TWINS)) or "(?!)"
# What a stage writes of one SAE.
STAGE_FILES = {
    "latents": "results/latents/{sae}/latents.parquet",
    "labels": "results/autointerp/{sae}/scores.parquet",
    "probing": "results/probing/{sae}/probing.json",
    "absorption": "results/absorption/{sae}/absorption.json",
}


def twin_ids(wildcards):
    """Ids of the twins of each SAE of a study, by kind."""
    return {
        sae_id: {kind: twin.sae_id for kind, twin in twins.items()} for sae_id, twins in TWINS[wildcards.study].items()
    }


def stages_asked(wildcards):
    """Each stage that a study holds against twins, with each of its SAEs and twins."""
    everyone = [sae for sae_id, twins in twin_ids(wildcards).items() for sae in (sae_id, *twins.values())]
    return [(stage, sae) for stage in CONFIG.studies[wildcards.study].twin_stages for sae in everyone]


def stage_file(study, stage, sae_id):
    """The file in which a stage's measures of an SAE are; stability is of all seeds of a study at once."""
    if stage == "stability":
        return f"results/stability/{study}/{Path(sae_id).parent}/stability.json"
    return STAGE_FILES[stage].format(sae=sae_id)
