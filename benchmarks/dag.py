"""Time and memory of planning studies of many jobs: what a user waits for before the first job starts.

    python benchmarks/dag.py --jobs 10000 50000 --output dag.json

The study is made up (the embedded model, four hooks, as many seeds as it takes), the workflow is the real one: a dry
run in a copy of this repository, without any results. Beside it, in the same run, Snakemake alone: as many bare jobs
with as many inputs, named outright, no functions, no messages, no scripts, no environments; and again with one shared
input, the least that a chain of jobs can do with. `--batches` plans one of so many parts (snakemake --batch).
"""

import argparse
import json
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
BARE = """\
SHARED = [f"shared/{i}" for i in range(INPUTS)]
rule all:
    input: [f"judged/{i}" for i in range(SEEDS)]
rule shared:
    output: "shared/{i}"
    shell: "touch {output}"
rule train:
    input: SHARED
    output: [f"trained/{{i}}/{name}" for name in "abcd"]
    log: "logs/train/{i}.log"
    resources: mem_mb=1000, runtime=60, gpu=1
    shell: "touch {output}"
rule evaluate:
    input: SHARED, "trained/{i}/a", "trained/{i}/b"
    output: "judged/{i}"
    log: "logs/evaluate/{i}.log"
    resources: mem_mb=1000, runtime=60, gpu=1
    shell: "touch {output}"
"""
HOOKS = ("resid_post.4", "resid_post.10", "resid_post.19", "resid_post.28")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--batches", type=int, default=0, help="plan the first of so many batches")
    parser.add_argument("--output", type=Path, help="JSON with the same numbers")
    arguments = parser.parse_args()
    rows = [measure(jobs, arguments.batches) for jobs in arguments.jobs]
    ours = f"{'jobs':>8} {'seconds':>8} {'CPU s':>7} {'ms/job':>7} {'MiB':>6}"
    print(f"{ours} {'bare CPU s':>11} {'ratio':>6} {'barest':>7}")
    for row in rows:
        jobs, cpu, bare = row["jobs"], row["cpu_seconds"], row["bare_cpu_seconds"]
        ours = f"{jobs:>8,} {row['seconds']:>8.1f} {cpu:>7.1f} {1e3 * cpu / jobs:>7.2f} {row['peak_mib']:>6.0f}"
        print(f"{ours} {bare:>11.1f} {cpu / bare:>6.2f} {row['barest_cpu_seconds']:>7.1f}")
    if arguments.output:
        machine = {"python": platform.python_version(), "machine": platform.processor() or platform.machine()}
        arguments.output.write_text(json.dumps({"runs": rows, **machine}, indent=2) + "\n")


def measure(jobs: int, batches: int = 0) -> dict[str, float]:
    """Plan a study of about `jobs` jobs; returns jobs, wall and processor seconds, and peak memory in MiB."""
    batch = ["--batch", f"study_table=1/{batches}"] if batches else []
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder), seeds=max(1, jobs // (2 * len(HOOKS))))
        planned = plan(project, *batch, "--", "results/many.csv")
    # The largest child so far: sizes are measured in rising order, and bare jobs take less.
    planned["peak_mib"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    bare, barest = plan_bare(planned["jobs"], inputs=9), plan_bare(planned["jobs"], inputs=1)
    return planned | {"bare_cpu_seconds": bare, "barest_cpu_seconds": barest}


def plan_bare(jobs: int, inputs: int) -> float:
    """Processor seconds in which Snakemake alone plans so many jobs that share so many inputs."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Snakefile").write_text(f"SEEDS, INPUTS = {jobs // 2}, {inputs}\n{BARE}")
        return plan(Path(folder), "--workflow-profile", "none")["cpu_seconds"]


def plan(project: Path, *arguments: str) -> dict[str, float]:
    """A dry run there: jobs, wall and processor seconds."""
    call = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--quiet", "rules", *arguments]
    began, before = time.perf_counter(), cpu_of_children()
    done = subprocess.run(call, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds, cpu = time.perf_counter() - began, cpu_of_children() - before
    found = re.findall(r"^total\s+(\d+)$", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        raise SystemExit(f"the dry run failed, or printed no number of jobs:\n{done.stdout[-2000:]}")
    return {"jobs": int(found[-1]), "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}


def cpu_of_children() -> float:
    """Seconds of processor time, in which other programs of the machine do not count."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def make_project(folder: Path, seeds: int) -> Path:
    """A copy of the workflow with one study of four hooks and `seeds` seeds."""
    for name in ("workflow", "profiles", "envs"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "Snakefile", folder)
    (folder / "config").mkdir()
    config = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    study = config["studies"]["llama_sweep"] | {"seeds": list(range(seeds)), "published": None}
    kept = {key: config[key] for key in ("corpora", "recipes", "evaluation")}
    kept["models"] = {study["model"]: config["models"][study["model"]]}
    kept["mixes"] = {study["mix"]: config["mixes"][study["mix"]]}
    kept["studies"] = {"many": study | {"rows": [{"hook": hook} for hook in HOOKS]}}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(kept))
    return folder


if __name__ == "__main__":
    main()
