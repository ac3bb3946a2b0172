"""Measure the cost of the workflow over calling the library: the same references, trainings and evaluations, both ways.

    python benchmarks/overhead.py --study llama_sweep --hook resid_post.10

Needs a finished run of the study in results/: its models, corpora, tokens, audits and activations are linked into two
folders, and the rest of the SAEs at one hook is made there anew: in one by `snakemake --cores 1`, a process for each
job; in the other by one process that calls the library's functions one after the other, with the model loaded as often
as they load it. The ways alternate; medians of wall and processor seconds are compared, and weights and metrics must be
the same.
"""

import argparse
import hashlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
GIVEN = ("models", "corpora", "tokens", "audits", "activations")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--study", default="llama_sweep")
    parser.add_argument("--hook", default="resid_post.10")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--library", action="store_true", help="be the second way, in this folder")
    arguments = parser.parse_args()
    if arguments.library:
        call_library(arguments.study, arguments.hook)
        return
    measured: dict[str, list[tuple[float, float]]] = {"workflow": [], "library": []}
    for _ in range(arguments.rounds):
        made = {}
        for way, values in measured.items():
            with tempfile.TemporaryDirectory(dir=arguments.results) as folder:
                project = make_project(Path(folder), arguments.results)
                values.append(run(command(way, arguments, project), project))
                made[way] = digests(project)
        if made["workflow"] != made["library"]:
            raise SystemExit("the two ways did not make the same files")
    wall, cpu = (
        {way: statistics.median(each[i] for each in values) for way, values in measured.items()} for i in (0, 1)
    )
    print(f"{'':10} {'wall s':>8} {'CPU s':>8}")
    for way in measured:
        print(f"{way:10} {wall[way]:8.1f} {cpu[way]:8.1f}")
    shares = [100 * (each["workflow"] / each["library"] - 1) for each in (wall, cpu)]
    print(f"{'overhead':10} {shares[0]:7.1f}% {shares[1]:7.1f}%")


def make_project(folder: Path, results: Path) -> Path:
    """The workflow with what is given, linked."""
    for name in ("workflow", "profiles", "envs", "config"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "Snakefile", folder)
    for name in GIVEN:
        shutil.copytree(results / name, folder / "results" / name, copy_function=os.link)
    return folder


def command(way: str, arguments: argparse.Namespace, project: Path) -> list[str]:
    """Return how a way is called from the project's folder."""
    if way == "library":
        script = [str(Path(__file__).resolve()), "--library"]
        return [sys.executable, *script, "--study", arguments.study, "--hook", arguments.hook]
    targets = [f"results/metrics/{row.sae_id}/metrics.json" for row in rows_of(project, arguments)]
    # What is linked has no provenance here, and is newer or older by chance.
    snakemake = [sys.executable, "-m", "snakemake", "--cores", "1", "--rerun-triggers", "mtime", "--quiet", "all"]
    return [*snakemake, "--", *targets]


def rows_of(project: Path, arguments: argparse.Namespace) -> list:
    sys.path.insert(0, str(REPOSITORY / "workflow"))
    from atlas.config.load import read_config
    from atlas.config.rows import expand_rows

    rows = expand_rows(read_config(project / "config/config.yaml"))[arguments.study]
    return [row for row in rows if row.hook == arguments.hook]


def run(call: list[str], folder: Path) -> tuple[float, float]:
    """Wall and processor seconds, those of all its processes."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder / "workflow")}
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(call)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def call_library(study: str, hook: str) -> None:
    """References, trainings and evaluations of a study's SAEs at a hook, one after the other, in this process."""
    from atlas.activations.store import open_shards
    from atlas.config.load import read_config
    from atlas.config.rows import expand_rows
    from atlas.config.tracking import Tracking
    from atlas.devices import choose_device, keep_freed_memory, make_deterministic, use_threads
    from atlas.evaluation.references import compute_references
    from atlas.evaluation.run import EvaluationInputs, run_evaluation
    from atlas.models.load import load_model
    from atlas.training.run import TrainingInputs, run_training
    from atlas.training.tracking import Tracked

    config, results = read_config("config/config.yaml"), Path("results")
    rows = [row for row in expand_rows(config)[study] if row.hook == hook]
    name, roles = rows[0].model, rows[0].roles
    model, harvest = results / "models" / name, config.models[name].harvest
    keep_freed_memory()
    use_threads(1)
    make_deterministic()
    device = choose_device(0)

    def shards(corpus: str, split: str) -> list[Path]:
        return sorted((results / "activations" / name / corpus).glob(f"{split}-*.h5"))

    references = {corpus: results / f"references/{name}/{corpus}.h5" for corpus in roles}
    for corpus, target in references.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        arguments = (
            open_shards(shards(corpus, "eval")),
            list(config.models[name].hooks),
            config.evaluation.loss_tokens,
        )
        compute_references(load_model(model, device), *arguments, harvest.batch_contexts, target)
    for row in rows:
        mix, folder = config.mixes[row.mix], results / "saes" / row.sae_id
        trained = [path for corpus in mix.corpora for path in shards(corpus, "train")]
        in_sample = next(corpus for corpus, role in roles.items() if role == "in_sample")
        monitored = {"in_sample": in_sample, "oos": next(corpus for corpus, role in roles.items() if role == "oos")}
        run_training(
            TrainingInputs(
                model=model,
                shards=trained,
                corpora=[results / f"corpora/{corpus}/corpus.json" for corpus in mix.corpora],
                monitors=[path for corpus in monitored.values() for path in shards(corpus, "eval")],
            ),
            hook=row.hook,
            mix=mix,
            recipe=row.recipe,
            seed=row.seed,
            names={"model": name, "mix": row.mix, "recipe": row.recipe_name},
            roles=roles,
            monitored=monitored,
            monitor_rows=config.evaluation.monitor_rows,
            device=device,
            folder=folder,
            state=results / "state" / row.sae_id,
            tracked=Tracked(Tracking(), results / "tracking" / row.sae_id, row.sae_id),
        )
        evaluated = [path for corpus in roles for path in shards(corpus, "eval")]
        run_evaluation(
            EvaluationInputs(model, folder, trained, evaluated, list(references.values())),
            hook=row.hook,
            roles=roles,
            recipe=row.recipe,
            settings=config.evaluation,
            seed=row.seed,
            device=device,
            target=results / "metrics" / row.sae_id / "metrics.json",
            batch_contexts=harvest.batch_contexts,
        )


def digests(project: Path) -> dict[str, str]:
    """Weights and metrics."""
    files = [*project.glob("results/saes/**/*.safetensors"), *project.glob("results/metrics/**/metrics.json")]
    return {str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    main()
