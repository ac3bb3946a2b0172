# Stages of measures: files of an SAE -> results/<stage>/<sae id>/…, a job for each SAE.
# Not part of a study's own table: tables of measures ask for them. Each is described in workflow/atlas/<package>/study.py.

HELD = {"model": model_mb, "codes": codes_mb, "probing": probing_mb}


def with_sae(path):
    """A path of a stage, with the wildcards of an SAE in the place of {sae}."""
    return path.replace("{sae}", "{model}/{hook}/{mix}/{recipe}/seed-{seed}")


def stage_mb(stage):
    """Resource function: what a stage says that it holds, and what it asks for beside that."""

    def needed(wildcards, attempt):
        beside = of_sae(stage.memory_mb)(wildcards) if callable(stage.memory_mb) else stage.memory_mb
        return int(sum(HELD[name](wildcards, attempt) for name in stage.holds) + attempt * beside)

    return needed


def stage_minutes(stage):
    """Resource function: minutes of a stage."""
    if stage.reads_rows:
        return encoding_minutes(judged_rows, least=stage.minutes)
    return lambda wildcards, attempt: stage.minutes * attempt


def stage_gpu(stage):
    """Resource of a stage that may use a GPU."""
    if stage.gpu is None:
        return {}
    return {"gpu": (lambda w: int(of_sae(stage.gpu)(w))) if callable(stage.gpu) else int(stage.gpu)}


def stage_message(stage):
    """The line that says which job has begun."""
    of = "{wildcards.recipe}, {wildcards.model} {wildcards.hook}, mix {wildcards.mix}, seed {wildcards.seed}"
    return f"{stage.says} {of}" + (": {params.note}" if stage.note else "")


def models_of(stage):
    """A pattern of the models whose SAEs can have a stage."""
    return only(name for name, model in CONFIG.models.items() if stage.models(model))


for STAGE in stages():

    rule:
        name:
            STAGE.name
        input:
            *([of_sae(STAGE.waits_for)] if STAGE.waits_for else []),
            **of_sae(STAGE.inputs),
        output:
            **{name: with_sae(path) for name, path in STAGE.outputs.items()},
        log:
            with_sae(f"results/logs/{STAGE.name}/{{sae}}.log"),
        benchmark:
            with_sae(f"results/benchmarks/{STAGE.name}/{{sae}}.tsv")
        wildcard_constraints:
            **({"model": models_of(STAGE)} if STAGE.models else {}),
        conda:
            "../../envs/atlas.yaml"
        threads: model_threads if STAGE.threads_of_model else 1
        resources:
            **stage_gpu(STAGE),
            mem_mb=stage_mb(STAGE),
            runtime=stage_minutes(STAGE),
        params:
            **of_sae(STAGE.params),
            **noted(STAGE, of_sae),
            call=function(STAGE.runs),
        message:
            stage_message(STAGE)
        script:
            "../scripts/call.py"
