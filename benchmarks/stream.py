"""Stream mode against store mode: the SAEs of a study from one pass, or from stored shards and a job for each.

    python benchmarks/stream.py --study llama_sweep [--steps 300]

Needs a prepared model, its audit, tokens and held-out activations in results/, for example of a finished study: they
are linked into two folders, and the SAEs are trained there by `snakemake --cores 1`, once in each mode, with the same
windows. Processor and wall seconds of all processes are compared, and the most disk that activations of training text
took at any time; weights must be the same to the bit. `--steps` and `--hooks` make it shorter, and are named in the
output: with fewer steps the forward pass weighs more.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import yaml
from overhead import REPOSITORY, digests, run

GIVEN = ("models", "corpora", "tokens", "audits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--study", default="llama_sweep")
    parser.add_argument("--shard-tokens", type=int, default=49_152)
    parser.add_argument("--window-shards", type=int, default=2)
    parser.add_argument("--steps", type=int, help="of every training; the study's own if not given")
    parser.add_argument(
        "--hooks", nargs="+", help="hooks that are stored, and whose SAEs are trained; all if not given"
    )
    parser.add_argument("--folder", type=Path, help="where the two projects are made; a temporary folder if not given")
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder or arguments.results) as folder:
        for mode in ("store", "stream"):
            found[mode] = measure(make_project(Path(folder) / mode, mode, arguments), arguments)
    if found["store"].pop("weights") != found["stream"].pop("weights"):
        raise SystemExit("the two modes did not make the same weights")
    store, stream = found["store"], found["stream"]
    ratios = {key: round(stream[key] / store[key], 4) for key in ("cpu_s", "wall_s", "peak_disk_mb")}
    print(f"{'':8} {'CPU s':>8} {'wall s':>8} {'peak disk MB':>14}  jobs")
    for mode, values in found.items():
        print(
            f"{mode:8} {values['cpu_s']:8.1f} {values['wall_s']:8.1f} {values['peak_disk_mb']:14.1f}  {values['jobs']}"
        )
    print(f"{'ratio':8} {ratios['cpu_s']:8.3f} {ratios['wall_s']:8.3f} {ratios['peak_disk_mb']:14.4f}")
    settings = {key: str(value) for key, value in vars(arguments).items() if key not in ("results", "folder")}
    print(json.dumps({"settings": settings, "ratios": ratios, **found}))


def make_project(folder: Path, mode: str, arguments: argparse.Namespace) -> Path:
    """The workflow with what is given, linked, in one of the modes."""
    for name in ("workflow", "profiles", "envs", "config"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "Snakefile", folder)
    for name in GIVEN:
        shutil.copytree(arguments.results / name, folder / "results" / name, copy_function=os.link)
    for path in (arguments.results / "activations").glob("*/*/eval-*.h5"):
        target = folder / "results" / path.relative_to(arguments.results)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    path = folder / "config" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    study = config["studies"][arguments.study]
    models = {row.get("model", study.get("model")) for row in study["rows"]}
    for name in models:
        config["models"][name]["harvest"] |= {
            "mode": mode,
            "window_shards": arguments.window_shards,
            "shard_tokens": arguments.shard_tokens,
        }
        config["models"][name]["harvest"].pop("corpora", None)
    if arguments.hooks:
        study["rows"] = [row for row in study["rows"] if row["hook"] in arguments.hooks]
        for name in models:
            config["models"][name]["hooks"] = arguments.hooks
    recipes = {row.get("recipe", study.get("recipe")) for row in study["rows"]}
    config["recipes"] = {name: config["recipes"][name] for name in recipes}
    if arguments.steps:
        for recipe in config["recipes"].values():
            recipe["steps"] = arguments.steps
            recipe["warmup_steps"] = min(recipe.get("warmup_steps", 0), arguments.steps // 10)
    config["studies"] = {arguments.study: study}
    keep = ("models", "corpora", "mixes", "recipes", "evaluation", "studies")
    path.write_text(yaml.safe_dump({key: config[key] for key in keep if key in config}))
    return folder


def measure(project: Path, arguments: argparse.Namespace) -> dict:
    """Train all SAEs of the study in a project."""
    targets = [f"results/saes/{sae_id}/sae_weights.safetensors" for sae_id in saes_of(project, arguments.study)]
    call = [sys.executable, "-m", "snakemake", "--cores", "1", "--rerun-triggers", "mtime", "--nolock", "--"]
    rows_on_disk = Watch(project / "results")
    with rows_on_disk:
        wall, cpu = run([*call, *targets], project)
    jobs = {path.parent.name: 0 for path in project.glob("results/benchmarks/*/*")}
    for name in jobs:
        jobs[name] = len(list((project / "results/benchmarks" / name).rglob("*.tsv")))
    values = {"cpu_s": cpu, "wall_s": wall, "peak_disk_mb": rows_on_disk.peak / 1e6, "jobs": jobs}
    return values | {"weights": digests(project)}


def saes_of(project: Path, study: str) -> list[str]:
    code = "import sys; from atlas.config.load import read_config; from atlas.config.rows import expand_rows\n"
    code += f"print('\\n'.join(row.sae_id for row in expand_rows(read_config('config/config.yaml'))[{study!r}]))"
    environment = os.environ | {"PYTHONPATH": "workflow"}
    done = subprocess.run([sys.executable, "-c", code], cwd=project, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return list(dict.fromkeys(done.stdout.split()))


class Watch:
    """The most that activations of training text and facts about them take on the disk inside the block."""

    def __init__(self, results: Path):
        self.results, self.peak = results, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            used = 0
            for pattern in ("activations/*/*/train-*", "activations/*/*/facts-*", "state/windows/**/*"):
                for path in self.results.glob(pattern):
                    try:
                        used += path.stat().st_blocks * 512
                    except FileNotFoundError:
                        continue
            self.peak = max(self.peak, used)


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"{time.monotonic() - began:.0f} s in all", file=sys.stderr)
