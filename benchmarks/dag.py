"""Time and memory of planning studies of many jobs: what a user waits for before the first job starts.

    python benchmarks/dag.py --jobs 10000 50000 --output dag.json

The study is made up (the embedded model, four hooks, as many seeds as it takes), the workflow is the real one: a dry
run in a copy of this repository, without any results. `--batches` plans one of so many parts (snakemake --batch).
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
HOOKS = ("resid_post.4", "resid_post.10", "resid_post.19", "resid_post.28")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--batches", type=int, default=0, help="plan the first of so many batches")
    parser.add_argument("--output", type=Path, help="JSON with the same numbers")
    arguments = parser.parse_args()
    rows = [measure(jobs, arguments.batches) for jobs in arguments.jobs]
    print(f"{'jobs':>8} {'seconds':>8} {'CPU s':>7} {'ms/job':>7} {'MiB':>6}")
    for row in rows:
        jobs, cpu = row["jobs"], row["cpu_seconds"]
        print(f"{jobs:>8,} {row['seconds']:>8.1f} {cpu:>7.1f} {1e3 * cpu / jobs:>7.2f} {row['peak_mib']:>6.0f}")
    if arguments.output:
        machine = {"python": platform.python_version(), "machine": platform.processor() or platform.machine()}
        arguments.output.write_text(json.dumps({"runs": rows, **machine}, indent=2) + "\n")


def measure(jobs: int, batches: int = 0) -> dict[str, float]:
    """Plan a study of about `jobs` jobs; returns jobs, wall and processor seconds, and peak memory in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder), seeds=max(1, jobs // (2 * len(HOOKS))))
        batch = ["--batch", f"study_table=1/{batches}"] if batches else []
        call = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--quiet", "rules", *batch]
        began, before = time.perf_counter(), cpu_of_children()
        with subprocess.Popen(
            [*call, "--", "results/many.csv"], cwd=project, stdout=subprocess.PIPE, text=True
        ) as child:
            text, _ = child.communicate()
        seconds, cpu = time.perf_counter() - began, cpu_of_children() - before
    if child.returncode:
        raise SystemExit(text)
    found = re.findall(r"^total\s+(\d+)$", text, re.MULTILINE)
    if not found:
        raise SystemExit(f"the dry run printed no number of jobs:\n{text[-2000:]}")
    # The largest child so far: sizes are measured in rising order.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "jobs": int(found[-1]),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_mib": round(peak),
    }


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
