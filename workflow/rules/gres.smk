# GPUs asked for as generic resources: for clusters whose SLURM takes `--gres=gpu:1` and refuses `--gpus=1`.
#
# Rules ask for `gpu=1`, of which the SLURM plugin makes `--gpus=1`; it refuses a job that has `gpu` and `gres` both.
# Included last, because it changes the resources of rules that are there.
from atlas.gpu_lease import gres_gpus

# Holds back the members of a group as `gpu` does: they take turns on the devices of their allocation.
TURN = "gpu_turn"


def as_gres(gpus, model):
    """The generic resource of `gpus` devices; a function where that is one."""
    if callable(gpus):
        return lambda wildcards: as_gres(gpus(wildcards), model)
    return f"gpu:{model}:{gpus}" if model and gpus else f"gpu:{gpus}" if gpus else ""


def ask_by_gres():
    """Replace `gpu` by `gres` in rules: in all with the default resource gpu_request=gres, else where gres is set."""
    asked_any = False
    for each in workflow.rules:
        resources, set_here = each.resources, workflow.resource_settings._parsed_overwrite_resources.get(each.name, {})
        request = resources["gpu_request"].raw if "gpu_request" in resources else None
        if request not in (None, "gres"):
            raise WorkflowError(f"default resource gpu_request is {request!r}; expected gres, or no gpu_request")
        given = str(resources["gres"].raw) if "gres" in resources else ""
        if "gpu" not in resources or not (request or "gpu" in given):
            continue
        if "gpu" in given and "gpu" in set_here and set_here["gpu"].raw:
            raise WorkflowError(
                f"--set-resources {each.name} has gpu={set_here['gpu'].raw} and gres={given}: both mean GPUs; leave one out"
            )
        if "gpu" not in given:
            model = resources["gpu_model"].raw if "gpu_model" in resources else None
            resources["gres"] = as_gres(resources["gpu"]._evaluator or resources["gpu"].value, model)
        resources["gpu"] = resources["gpu_model"] = None
        resources[TURN] = gres_gpus(given) if "gpu" in given else 1
        asked_any = True
    limited = "gpu" in workflow.global_resources and workflow.resource_scopes.is_local("gpu")
    if asked_any and limited and workflow.is_main_process:
        workflow.global_resources[TURN] = workflow.global_resources["gpu"].value
        workflow.resource_scopes[TURN] = "local"


ask_by_gres()
