"""A published SAE from its file to its row of a study's table: seconds, processor seconds and peak memory of each job.

    python benchmarks/published.py --latents 16384 --steps 150

Needs a finished sweep: the model, its stored activations and reference losses, which an SAE that is judged meets there.
First a TopK SAE of that size is trained for a few steps on stored rows, and written as SAELens writes one, without a
trace of this project; `--release` names the folder of one that is there already. Then Snakemake is called as
docs/judge_a_published_sae.md says, with a configuration file of that SAE alone, and what it made is removed again
unless `--keep` is given. Prints a table, the row's verdicts, and as the last line JSON.
"""

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml

CHECKOUT = Path(__file__).parents[1]
NAME, STUDY, RECIPE = "benchmark-published", "benchmark_published", "benchmark-wide"
CORPORA = {"in_sample": "chat", "proxy": ["encyclopedia"], "oos": ["news"]}
RULES = ("fetch_published", "publish", "evaluate", "study_table")


def main(arguments: argparse.Namespace) -> None:
    hook = f"resid_post.{arguments.layer}"
    with tempfile.TemporaryDirectory() as folder:
        release = arguments.release or trained(arguments, hook, Path(folder))
        config = Path(folder) / "mine.yaml"
        config.write_text(yaml.safe_dump(configuration(arguments, hook, release.resolve())))
        snakemake(arguments, config, *references(arguments))
        seconds, processor = snakemake(arguments, config, f"results/{STUDY}.csv")
    table = pd.read_csv(f"results/{STUDY}.csv")
    jobs = {rule: taken(rule) for rule in RULES}
    report(table, jobs, seconds, processor)
    if not arguments.keep:
        remove()


def trained(arguments: argparse.Namespace, hook: str, folder: Path) -> Path:
    """Train an SAE by the workflow, and write it to `folder` without our metadata."""
    recipe = {"architecture": "topk", "n_latents": arguments.latents, "k": 32, "lr": 1e-3, "batch_size": 1024}
    recipe |= {"steps": arguments.steps, "warmup_steps": min(20, arguments.steps - 1)}
    rows = [{"hook": hook, "recipe": RECIPE}]
    study = {"model": arguments.model, "mix": "chat", "evaluation": CORPORA, "rows": rows}
    config = folder / "train.yaml"
    config.write_text(yaml.safe_dump({"recipes": {RECIPE: recipe}, "studies": {"benchmark_trained": study}}))
    sae = Path("results/saes", arguments.model, hook, "chat", RECIPE, "seed-0")
    snakemake(arguments, config, str(sae / "sae_weights.safetensors"))
    release = folder / "release"
    release.mkdir()
    shutil.copy(sae / "sae_weights.safetensors", release)
    theirs = json.loads((sae / "cfg.json").read_text())
    del theirs["metadata"]["atlas"]
    (release / "cfg.json").write_text(json.dumps(theirs))
    return release


def configuration(arguments: argparse.Namespace, hook: str, release: Path) -> dict:
    """The lines of YAML that a user writes."""
    sae = {"source": {"kind": "path", "path": str(release), "licence": "MIT"}, "format": arguments.format}
    sae |= {"model": arguments.model, "hook": hook, "n_latents": arguments.latents}
    return {"saes": {NAME: sae}, "studies": {STUDY: {"evaluation": CORPORA, "rows": [{"sae": NAME}]}}}


def references(arguments: argparse.Namespace) -> list[str]:
    """Name the files that all rows of the model share."""
    return [f"results/references/{arguments.model}/{corpus}.h5" for corpus in ("chat", "encyclopedia", "news")]


def snakemake(arguments: argparse.Namespace, config: Path, *targets: str) -> tuple[float, float]:
    """Seconds and processor seconds of a call as users make it."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(arguments.cores), "--configfile", str(config)]
    before, started = spent(), time.perf_counter()
    triggers = ["--rerun-triggers", *arguments.rerun_triggers]
    done = subprocess.run([*command, *triggers, "--", *targets], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.perf_counter() - started, spent() - before


def spent() -> float:
    """Processor seconds of all ended children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def taken(rule: str) -> dict[str, float]:
    """Read Snakemake's benchmark file of the one job of a rule."""
    (path,) = [
        path for path in Path("results/benchmarks", rule).rglob("*.tsv") if NAME in str(path) or STUDY in str(path)
    ]
    with path.open(newline="") as stream:
        row = next(csv.DictReader(stream, delimiter="\t"))
    return {"s": float(row["s"]), "cpu_s": float(row["cpu_time"]), "max_rss_mb": float(row["max_rss"])}


def report(table: pd.DataFrame, jobs: dict[str, dict[str, float]], seconds: float, processor: float) -> None:
    print(f"{'job':<18}{'s':>8}{'cpu s':>8}{'peak MB':>9}")
    for rule, used in jobs.items():
        print(f"{rule:<18}{used['s']:>8.1f}{used['cpu_s']:>8.1f}{used['max_rss_mb']:>9.0f}")
    print(f"{'whole call':<18}{seconds:>8.1f}{processor:>8.1f}")
    shown = ["corpus", "outcome", "atlas_explained_variance", "atlas_l0", "atlas_dead_pct"]
    print(table[[name for name in shown if name in table]].to_string(index=False))
    found = {"jobs": jobs, "seconds": seconds, "cpu_seconds": processor, "cores": os.cpu_count()}
    print(json.dumps(found | {"peak_mb": max(used["max_rss_mb"] for used in jobs.values())}))


def remove() -> None:
    """Delete what was made for the SAE of this benchmark."""
    results = Path("results")
    for path in [*results.rglob(f"{NAME}*"), *results.rglob(f"*{STUDY}*"), *results.rglob(f"{RECIPE}*")]:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layer", type=int, default=19)
    parser.add_argument("--latents", type=int, default=16384)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--release", type=Path, help="folder of a published SAE, in the place of one trained here")
    parser.add_argument("--format", default="saelens")
    parser.add_argument("--keep", action="store_true", help="leave what was made in results/")
    triggers = ["code", "input", "mtime", "params", "software-env"]
    parser.add_argument("--rerun-triggers", nargs="+", default=triggers, help="of Snakemake")
    main(parser.parse_args())
