# Jobs that need more than they first ask for, and jobs that say which GPU they see.
import sys


rule all:
    input:
        "hungry.txt",
        "slow.txt",
        expand("gpu-{n}.txt", n=range(2)),
        expand("member-{n}.txt", n=range(2)),


rule hungry:
    """Takes 900 MB; the first attempt may use 600, the second 2400."""
    output:
        "hungry.txt",
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 600 * attempt**2,
        runtime=5,
    params:
        python=sys.executable,
    shell:
        "{params.python} -c 'import time; taken = bytearray(b\"x\" * 900_000_000); time.sleep(4)' && touch {output}"


rule slow:
    """Hangs in its first attempt, of one minute; SLURM ends it."""
    output:
        "slow.txt",
    threads: 1
    resources:
        mem_mb=400,
        runtime=lambda w, attempt: attempt,
    params:
        # The attempt's number reaches the job by what it is granted.
        seconds=lambda w, resources: 600 if resources.runtime == 1 else 0,
    shell:
        "sleep {params.seconds} && touch {output}"


# The lease that every job of the workflow takes, inside an allocation.
LEASE = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from atlas.gpu_lease import lease
begin = time.time()
with lease(1) as names:
    time.sleep(8)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(names)
    print(begin, ",".join(names), time.time())
"""


SAY_GPUS = f"{{params.python}} -c '{LEASE}' {{params.library}} > {{output}}"


rule gpu:
    output:
        "gpu-{n}.txt",
    threads: 2
    resources:
        mem_mb=700,
        runtime=3,
        gpu=1,
    params:
        python=sys.executable,
        library=config["library"],
    shell:
        SAY_GPUS


rule member:
    """Two of these make a group."""
    output:
        "member-{n}.txt",
    threads: 1
    resources:
        mem_mb=700,
        runtime=3,
        gpu=1,
    params:
        python=sys.executable,
        library=config["library"],
    shell:
        SAY_GPUS
