"""A project in a temporary folder: the real workflow on tiny models and made text."""

import contextlib
import hashlib
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import warm_python
import yaml

from tiny import tiny_bert, tiny_llama, tiny_nemotron_h

REPOSITORY = Path(__file__).parents[2]
WORDS = (
    "market river engine letter garden number window paper signal winter music doctor village silver bridge "
    "farmer report ocean morning planet student teacher kitchen mountain forest yellow hammer candle ticket"
).split()


def make_project(folder: Path, models: dict[str, str]) -> Path:
    """Copy the workflow to `folder` and configure one study per model; `models` maps names to families."""
    for name in ("workflow", "profiles", "envs"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "Snakefile", folder)
    (folder / "config").mkdir()
    (folder / "data").mkdir()
    makers = {"llama": tiny_llama, "bert": tiny_bert, "nemotron_h": tiny_nemotron_h}
    for family in set(models.values()):
        makers[family](folder / "data" / family)
    for seed, corpus in enumerate(("chat", "wiki", "news")):
        write_corpus(folder / "data" / f"{corpus}.jsonl", seed)
    write_config(folder, config_for(folder, models))
    return folder


def write_corpus(path: Path, seed: int, n_documents: int = 150) -> None:
    """Documents of random words; each corpus has a seed, hence words of its own frequency."""
    generator = random.Random(seed)
    weights = [generator.random() ** 3 for _ in WORDS]
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(n_documents):
            text = " ".join(generator.choices(WORDS, weights, k=generator.randint(60, 120)))
            stream.write(json.dumps({"text": text}) + "\n")


def config_for(folder: Path, models: dict[str, str]) -> dict:
    """A whole configuration: three corpora, one mix, one recipe per architecture, one study per model."""
    harvest = {
        "context_length": 32,
        "batch_contexts": 8,
        "train_tokens": 4096,
        "eval_tokens": 1024,
        "shard_tokens": 2048,
    }
    recipe = {
        "steps": 150,
        "batch_size": 128,
        "warmup_steps": 10,
        "lr": 1e-3,
        "monitor_every": 50,
        "checkpoint_every": 10,
    }
    study = {
        "mix": "chat",
        "recipe": "topk",
        "evaluation": {"in_sample": "chat", "proxy": ["wiki"], "oos": ["news"]},
    }
    config = {"models": {}, "corpora": {}, "mixes": {}, "recipes": {}, "studies": {}}
    for name, family in models.items():
        identity = json.loads((folder / "data" / family / "config.json").read_text())
        n_layers = identity.get("num_hidden_layers") or len(identity["layers_block_type"])
        config["models"][name] = {
            "source": {"kind": "path", "path": f"data/{family}"},
            "objective": "embedding" if family == "bert" else "causal_lm",
            "dtype": "float32",
            "n_layers": n_layers,
            "d_model": identity["hidden_size"],
            "hooks": ["resid_post.0", "resid_post.1"],
            "harvest": harvest,
        }
        rows = [{"hook": "resid_post.0"}, {"hook": "resid_post.1", "override": {"n_latents": 48}}]
        config["studies"][f"{name}_study"] = study | {"model": name, "rows": rows}
    for corpus in ("chat", "wiki", "news"):
        fraction = 0.3 if corpus == "chat" else 1.0
        source = {"kind": "path", "path": f"data/{corpus}.jsonl"}
        config["corpora"][corpus] = {"source": source, "eval_fraction": fraction}
    config["mixes"]["chat"] = {"phases": [{"until": 1.0, "weights": {"chat": 1.0}}]}
    config["recipes"]["topk"] = {"architecture": "topk", "n_latents": 64, "k": 4, **recipe}
    config["evaluation"] = {"loss_tokens": 512, "monitor_rows": 256}
    return config


def write_config(folder: Path, config: dict) -> None:
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(config))


def read_config(folder: Path) -> dict:
    return yaml.safe_load((folder / "config" / "config.yaml").read_text())


def command(*arguments: str) -> list[str]:
    """A call as users make it: each job starts a Python of its own."""
    return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]


def warm_command(*arguments: str) -> list[str]:
    """The same call, in which nothing imports libraries: all are forks of a process that has them."""
    python = warm_python.executable()
    return [python, str(Path(__file__).with_name("warm_snakemake.py")), python, "--cores", "2", *arguments]


def snakemake(folder: Path, *arguments: str, fails: bool = False) -> str:
    """Run snakemake in a project; returns what it printed."""
    done = subprocess.run(warm_command(*arguments), cwd=folder, capture_output=True, text=True, timeout=900)
    assert (done.returncode != 0) == fails, done.stdout[-5000:] + done.stderr[-15000:]
    return done.stdout + done.stderr


def planned(folder: Path, *targets: str) -> dict[str, int]:
    """How many jobs of each rule a dry run plans."""
    return counted(snakemake(folder, "--dry-run", *targets))


def counted(text: str) -> dict[str, int]:
    """How many jobs of each rule the printed plan has."""
    if "Nothing to be done" in text:
        return {}
    table = text.split("Job stats:")[1].split("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)}


def copy_of(project: Path, folder: Path) -> Path:
    """A project with the times of its files, by which Snakemake knows what is done."""
    return shutil.copytree(project, folder, dirs_exist_ok=True)


def halting(folder: Path, before: str, times: int = 1, once: bool = True) -> dict[str, str]:
    """Variables with which jobs stand still before they rename a file to a path like `before`: see halting/."""
    folder.mkdir()
    library = str(Path(__file__).with_name("halting"))
    asked = {"PYTHONPATH": library, "HALT_BEFORE": before, "HALT_TIMES": str(times), "HALTED": str(folder)}
    return asked | ({"HALT_ONCE": "yes"} if once else {})


def standing_still(folder: Path) -> list[tuple[psutil.Process, str]]:
    """Processes that stand still for `halting` in that folder, each with the name of its script.

    Rules without a script of their own have the folder of their results, results/<folder>.
    """
    found = []
    for note in folder.glob("[0-9]*"):
        script, _, path = note.read_text().partition("\n")
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(int(note.name))
            if path and process.status() == psutil.STATUS_STOPPED:
                name = script.split(".")[-2]
                found.append((process, path.partition("results/")[2].split("/")[0] if name == "call" else name))
    return found


def wait_for_halt(process: subprocess.Popen, folder: Path, script: str) -> list[psutil.Process]:
    """All processes that run `script`, once one of them stands still."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        if any(name == script for _, name in standing_still(folder)):
            return [child for child in psutil.Process(process.pid).children(recursive=True) if runs(child, script)]
        time.sleep(0.1)
    pytest.fail(f"no job of {script}.py stood still")


def heed_ctrl_c() -> None:
    """A process started in the background of a shell ignores SIGINT, and so does what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def runs(child: psutil.Process, script: str) -> bool:
    try:
        return any(part.endswith(f".{script}.py") for part in child.cmdline())
    except psutil.Error:
        return False


def digests(project: Path) -> dict[str, str]:
    """Hashes of all weights and of the tables."""
    paths = [*project.glob("results/saes/**/sae_weights.safetensors"), *project.glob("results/*_study.csv")]
    return {str(p.relative_to(project)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}
