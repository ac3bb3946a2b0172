# Jobs on a cluster that refuses --gpus: one alone, and two in a group, which take turns on one GPU.
import sys

sys.path.insert(0, config["library"])

from atlas.gpu_lease import granted_gpus


rule all:
    input:
        "gres-alone.txt",
        expand("gres-member-{n}.txt", n=range(2)),


# The lease of a job of the workflow, which is granted what its resources say.
LEASE = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from atlas.gpu_lease import lease
begin = time.time()
with lease(int(sys.argv[2])) as names:
    time.sleep(4)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(names)
    print(begin, ",".join(names), time.time())
"""
SAY_GPUS = f"{{params.python}} -c '{LEASE}' {{params.library}} {{params.granted}} > {{output}}"


rule gres_alone:
    output:
        "gres-alone.txt",
    threads: 1
    resources:
        mem_mb=700,
        runtime=3,
        gpu=1,
    params:
        python=sys.executable,
        library=config["library"],
        granted=lambda w, resources: granted_gpus(resources),
    shell:
        SAY_GPUS


rule gres_member:
    """Two of these make a group."""
    output:
        "gres-member-{n}.txt",
    threads: 1
    resources:
        mem_mb=700,
        runtime=3,
        gpu=1,
    params:
        python=sys.executable,
        library=config["library"],
        granted=lambda w, resources: granted_gpus(resources),
    shell:
        SAY_GPUS


include: config["library"] + "/rules/gres.smk"
