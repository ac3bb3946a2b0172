"""Every stage against every fault: nothing lost, nothing half-published, an error that names the remedy."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import psutil
import pytest
import torch
import yaml
from faults import fault, read_table, rows_of
from project import (
    REPOSITORY,
    WORDS,
    command,
    copy_of,
    digests,
    halting,
    make_project,
    planned,
    read_config,
    snakemake,
    standing_still,
    warm_command,
    write_config,
)
from wheels import make_wheel, source_of

from atlas.activations.store import Shard
from atlas.config.corpora import Corpus
from atlas.config.data import TokenBudget
from atlas.corpora.tokens import read_tokens, tokenise_corpus
from atlas.errors import AtlasError
from atlas.evaluation.references import References
from atlas.job_lock import RESULTS_LOCK
from atlas.locks import lock_if_free, read_holder
from atlas.models.gate import require_passed
from atlas.models.load import load_model
from atlas.runcard import read_run_card
from atlas.studies.table import write_study_table
from atlas.tables import read_csv, read_parquet
from atlas.training.sae import load_sae

pytestmark = pytest.mark.slow

TABLE = "results/llama_study.csv"
CPU = torch.device("cpu")
HOOK = "resid_post.1"
METRICS = "results/metrics/llama/resid_post.0/chat/topk/seed-0/metrics.json"
SAE = f"results/saes/llama/{HOOK}/chat/topk/seed-0"

# What a job of each stage runs and the first file that it writes.
STAGES = {
    "model": ("prepare_model", "results/models/llama"),
    "documents": ("build_documents", "results/corpora/news/documents.parquet"),
    "tokens": ("tokenise", "results/tokens/llama/news.h5"),
    "audit": ("audit_model", "results/audits/llama.json"),
    "harvest": ("harvest", "results/activations/llama/chat/train-001.h5"),
    "training": ("train", f"{SAE}/sae_weights.safetensors"),
    "references": ("references", "results/references/llama/news.h5"),
    "evaluation": ("evaluate", METRICS),
    "table": ("study_table", TABLE),
}


def everything(project: Path) -> dict[str, bytes]:
    """Every file of the results that is not a log or a measurement of a run."""
    skipped = ("results/logs/", "results/benchmarks/")
    paths = [path for path in (project / "results").rglob("*") if path.is_file()]
    named = {path.relative_to(project).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in named.items() if not name.startswith(skipped)}


def left_behind(project: Path) -> list[str]:
    """Temporary files, checkpoints, locks, and processes that still work in the project."""
    paths = [*project.glob("results/**/*.tmp*"), *project.glob("results/state/**/*.safetensors")]
    paths += [*project.glob(".snakemake/atlas-jobs/*"), *project.glob(".snakemake/locks/*")]
    found = [str(path) for path in paths]
    for process in psutil.process_iter(["cwd", "cmdline"]):
        if process.info["cwd"] == str(project):
            found.append(" ".join(process.info["cmdline"] or []))
    return found


# Killed and displaced ---------------------------------------------------------------------------------------------

AGAIN = {
    "SIGKILL": "tried again by the same call, which ends with the same bits; a training goes on from its checkpoint",
    "SIGTERM": "as after kill -9; a training first writes a checkpoint of the step it is at",
}


@pytest.fixture(scope="module")
def battered(tmp_path_factory) -> tuple[Path, set[tuple[str, str]]]:
    """A run in which the first two jobs of each stage are ended, one by SIGKILL and one by SIGTERM.

    Every job stands still before it renames its first file, which is the moment when most could be lost.
    """
    project = make_project(tmp_path_factory.mktemp("battered"), {"llama": "llama"})
    stages = {script: stage for stage, (script, _) in STAGES.items()}
    halted = project / "halted"
    sent: dict[int, tuple[str, str]] = {}
    with (
        (project / "run.log").open("w") as log,
        subprocess.Popen(
            warm_command("--retries", "3", TABLE),
            cwd=project,
            env=os.environ | halting(halted, "*results/*", once=False),
            stdout=log,
            stderr=log,
        ) as process,
    ):
        while process.poll() is None:
            for job, script in standing_still(halted):
                stage = stages.get(script)
                due = [name for name in ("SIGKILL", "SIGTERM") if (stage, name) not in sent.values()]
                if stage and due and job.pid not in sent:
                    sent[job.pid] = (stage, due[0])
                    job.send_signal(signal.Signals[due[0]])
                with contextlib.suppress(psutil.NoSuchProcess):
                    job.resume()
            time.sleep(0.02)
    assert process.returncode == 0, (project / "run.log").read_text()[-8000:]
    return project, set(sent.values())


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        pytest.param(stage, name, marks=fault(stage, {"SIGKILL": "kill -9", "SIGTERM": "SIGTERM"}[name], AGAIN[name]))
        for name in AGAIN
        for stage in STAGES
    ],
)
def test_killed_jobs_are_done_again_with_the_same_bits(battered, finished_once, stage, name):
    project, sent = battered
    assert (stage, name) in sent
    assert digests(project) == digests(finished_once)
    assert left_behind(project) == []


# Disks ------------------------------------------------------------------------------------------------------------

FULL = "an error that says to free space and run again; no part of a file is left, and no other file is touched"
READ_ONLY = "an error that says so; nothing is changed, and no job hangs"

# Stages whose outputs do not need each other, so that one call meets several.
GROUPS = (
    ("model", "documents"),
    ("tokens",),
    ("audit",),
    ("harvest",),
    ("training", "references"),
    ("evaluation",),
    ("table",),
)


def on_small_disk(project: Path, *, mount: str, targets: list[str]) -> str:
    """What a call printed that had to fail, with `mount` (a shell command) changing the disk of results/ before it."""
    if subprocess.run(["sh", "-c", "unshare --mount --map-root-user true"], capture_output=True).returncode:
        assert "CI" not in os.environ, "CI must be able to mount a file system"
        pytest.skip("needs mount namespaces (Linux with unshare)")
    call = " ".join(command("--retries", "0", "--rerun-triggers", "mtime", "--", *targets))
    script = f"{mount} && {call}; status=$?; rm -f results/filler; cp -a results/. kept/; exit $status"
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script],
        cwd=project, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "stages", [pytest.param(group, marks=[fault(stage, "disk full", FULL) for stage in group]) for group in GROUPS]
)
def test_full_disk(finished_once, tmp_path, stages):
    project = copy_of(finished_once, tmp_path)
    targets = [STAGES[stage][1] for stage in stages]
    # Of a failed job Snakemake takes all outputs away.
    removed = [target if target.count("/") < 3 or target == METRICS else str(Path(target).parent) for target in targets]
    removed += [target.replace("metrics.json", "document_sums.safetensors") for target in targets if target == METRICS]
    for target in removed:
        subprocess.run(["rm", "-rf", target], cwd=project, check=True)
    before = everything(project)
    (project / "kept").mkdir()
    # The results on a disk of their own without a free page: a log has what its last run took.
    mount = (
        "cp -a results packed && mount -t tmpfs -o size=64m tmpfs results && cp -a packed/. results/ && "
        "head -c 70000000 /dev/zero > results/filler 2>/dev/null; true"
    )
    text = on_small_disk(project, mount=mount, targets=targets)
    assert text.count("free some space") >= len(stages), text[-6000:]
    (project / "results").rename(project / "old")
    (project / "kept").rename(project / "results")
    after = everything(project)
    assert not [name for name in after if ".tmp" in name or any(name.startswith(target) for target in removed)]
    assert {name: data for name, data in after.items() if name in before} == before
    assert left_behind(project) == []


@fault("table, by what all jobs share", "read-only results folder", READ_ONLY)
def test_read_only_results(finished_once, tmp_path):
    project = copy_of(finished_once, tmp_path)
    (project / TABLE).unlink()
    before = everything(project)
    (project / "kept").mkdir()
    mount = "mount --bind results results && mount -o remount,bind,ro results"
    text = on_small_disk(project, mount=mount, targets=[TABLE])
    assert "Read-only file system" in text
    assert "results" in text
    assert everything(project) == before
    assert left_behind(project) == []


# Files that change ------------------------------------------------------------------------------------------------


def read_model(project: Path):
    return {
        name: value.clone()
        for name, value in load_model(project / "results/models/llama", CPU).model.state_dict().items()
    }


def read_documents(project: Path):
    config = yaml.safe_load((project / "config/config.yaml").read_text())
    harvest = config["models"]["llama"]["harvest"]
    budget = TokenBudget(**{key: harvest[key] for key in ("context_length", "train_tokens", "eval_tokens")})
    target = project / "again.h5"
    corpus = Corpus(**config["corpora"]["news"])
    tokenise_corpus(
        project / "results/corpora/news", project / "results/models/llama", corpus, budget, ["eval"], target
    )
    return read_tokens(target, "eval").tokens.tobytes()


def read_token_file(project: Path):
    split = read_tokens(project / "results/tokens/llama/news.h5", "eval")
    return split.tokens.tobytes(), split.document.tobytes(), split.counted.tobytes()


def read_shard(project: Path):
    shard = Shard.open(project / "results/activations/llama/chat/train-001.h5")
    return [
        *(column.tobytes() for column in (shard.tokens, shard.document, shard.position, shard.counted)),
        *(shard.read_rows(hook, 0, shard.n_rows).view(torch.uint16).numpy().tobytes() for hook in shard.hooks),
    ]


def read_sae(project: Path):
    sae = load_sae(project / SAE)
    return sae.W_enc.numpy().tobytes(), sae.W_dec.numpy().tobytes(), sae.b_dec.numpy().tobytes()


def read_references(project: Path):
    path = project / "results/references/llama/news.h5"
    identity = Shard.open(project / "results/activations/llama/news/eval-000.h5").identity
    references = References.open(path, HOOK, identity)
    clean = references.clean(0, references.n_contexts, CPU)
    losses = (references.loss_clean, references.loss_zero, references.loss_mean)
    return [
        *(values.tobytes() for values in (references.mask, references.document, *losses)),
        *(values.view(torch.uint8).numpy().tobytes() for values in clean.values()),
    ]


def read_audit(project: Path):
    loaded = load_model(project / "results/models/llama", CPU)
    return require_passed(project / "results/audits/llama.json", loaded, [HOOK])


def read_metrics(project: Path):
    corpora = {"llama/resid_post.0/chat/topk/seed-0": ["chat"]}
    paths = dict.fromkeys(corpora, project / METRICS)
    write_study_table("study", paths, corpora, None, project / "again.csv")


def read_card(project: Path):
    return read_run_card(project / SAE / "run_card.yaml")


def read_curves(project: Path):
    return read_parquet(project / SAE / "training.parquet").to_json()


def read_study_table(project: Path):
    return read_csv(project / TABLE).to_json()


READERS: dict[str, tuple[str, str, Callable]] = {
    "weights of the model": (
        "audit, harvest and all that runs the model",
        "results/models/llama/model.safetensors",
        read_model,
    ),
    "configuration of the model": (
        "audit, harvest and all that runs the model",
        "results/models/llama/config.json",
        read_model,
    ),
    "tokenizer": ("tokens", "results/models/llama/tokenizer.json", read_documents),
    "documents": ("tokens", "results/corpora/news/documents.parquet", read_documents),
    "tokens": ("harvest", "results/tokens/llama/news.h5", read_token_file),
    "activations": ("training, evaluation", "results/activations/llama/chat/train-001.h5", read_shard),
    "SAE": ("evaluation and all that uses an SAE", f"{SAE}/sae_weights.safetensors", read_sae),
    "configuration of an SAE": ("evaluation and all that uses an SAE", f"{SAE}/cfg.json", read_sae),
    "run card": ("tables of runs, pages and exports", f"{SAE}/run_card.yaml", read_card),
    "training curves": ("figures, pages", f"{SAE}/training.parquet", read_curves),
    "references": ("evaluation", "results/references/llama/news.h5", read_references),
    "audit": ("harvest", "results/audits/llama.json", read_audit),
    "metrics": ("table", METRICS, read_metrics),
    "table": ("figures, printed tables", TABLE, read_study_table),
}
NAMED = "an error that says what to delete before the same command is run again"
NOTICED = {"flipped": f"{NAMED}, or a bit that no reader uses", "truncated": NAMED}


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=fault(stage, f"truncated input: {what}", NOTICED["truncated"]))
        for what, (stage, _, _) in READERS.items()
    ],
)
def test_truncated_input_is_named(finished_once, tmp_path, what):
    _, path, read = READERS[what]
    project = copy_of(finished_once, tmp_path)
    read(project)
    whole = (project / path).read_bytes()
    for share in (0, 0.5, 0.99):
        (project / path).write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(AtlasError, match=r"run again") as caught:
            read(project)
        assert Path(path).name in str(caught.value) or "*.safetensors" in str(caught.value)
    assert left_behind(project) == []


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=fault(READERS[what][0], f"flipped bit in {what}", NOTICED["flipped"]))
        for what in READERS
    ],
)
def test_no_flipped_bit_goes_unnoticed(finished_once, tmp_path, what):
    _, path, read = READERS[what]
    project = copy_of(finished_once, tmp_path)
    expected, whole = read(project), (project / path).read_bytes()
    generator, noticed = random.Random(0), 0
    for _ in range(25):
        place = generator.randrange(len(whole))
        (project / path).write_bytes(
            whole[:place] + bytes([whole[place] ^ 1 << generator.randrange(8)]) + whole[place + 1 :]
        )
        try:
            assert same(read(project), expected)
        except AtlasError as error:
            noticed += 1
            assert Path(path).name in str(error) or "*.safetensors" in str(error)
    assert noticed > 12
    assert left_behind(project) == []


def same(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    return one == other


# Sources that change ----------------------------------------------------------------------------------------------


REPLACED = "a local source is replaced by files of an older date"
MADE_AGAIN = "it is prepared again, and what depends on it; the old files again: nothing runs"


@fault("model", REPLACED, MADE_AGAIN)
@fault("documents", REPLACED, MADE_AGAIN)
def test_replaced_sources(finished_once, tmp_path):
    project = copy_of(finished_once, tmp_path)
    assert planned(project, TABLE) == {}
    for source, rule in (("data/news.jsonl", "build_documents"), ("data/llama/model.safetensors", "prepare_model")):
        path = project / source
        whole, status = path.read_bytes(), path.stat()
        path.write_bytes(whole[:-2] + b"\0\0")
        os.utime(path, (status.st_atime - 1e6, status.st_mtime - 1e6))
        assert rule in planned(project, TABLE)
        path.write_bytes(whole)
        os.utime(path, (status.st_atime - 1e6, status.st_mtime - 1e6))
        assert planned(project, TABLE) == {}


# Snakemake's own view ---------------------------------------------------------------------------------------------


@fault(
    "harvest",
    "a shard vanishes",
    "nothing runs while its SAEs are there; asked for, it is made again, the same",
)
@fault("table", "it vanishes", "it alone is made again")
def test_vanished_files(finished_once, tmp_path):
    project = copy_of(finished_once, tmp_path)
    shard, table = project / STAGES["harvest"][1], project / TABLE
    bits, text = shard.read_bytes(), table.read_text()
    shard.unlink()
    assert planned(project, TABLE) == {}
    table.unlink()
    assert planned(project, TABLE) == {"study_table": 1}
    snakemake(project, "--rerun-triggers", "mtime", "--", TABLE)
    assert table.read_text() == text
    snakemake(project, str(shard.relative_to(project)))
    assert rows_of_shard(shard) == rows_of_shard(bits, tmp_path / "before.h5")
    assert left_behind(project) == []


def rows_of_shard(shard: Path | bytes, place: Path | None = None):
    if isinstance(shard, bytes):
        place.write_bytes(shard)
        shard = place
    with h5py.File(shard) as file:
        found = {}
        file.visititems(
            lambda name, each: found.update({name: each[()].tobytes()}) if isinstance(each, h5py.Dataset) else None
        )
    return found


@fault(
    "harvest",
    "one shard fails and goes on failing",
    "the other shards and all that needs none of it are made and kept; what waited for it is made once it is mended",
)
def test_one_failing_shard_discards_no_other(finished_once, tmp_path):
    project = copy_of(finished_once, tmp_path)
    shards = [project / f"results/activations/llama/chat/train-{number:03d}.h5" for number in range(2)]
    for path in (*shards, project / TABLE):
        path.unlink()
    for folder in ("saes", "metrics", "references"):
        shutil.rmtree(project / "results" / folder)
    adapter = project / "workflow/scripts/harvest.py"
    whole = adapter.read_text()
    adapter.write_text(f"assert snakemake.wildcards.shard != '001', 'a failing node'\n{whole}")
    text = snakemake(project, "--rerun-triggers", "mtime", "--", TABLE, fails=True)
    assert "a failing node" in text
    assert [path.exists() for path in shards] == [True, False]
    kept = {path: path.stat().st_mtime_ns for path in [shards[0], *project.glob("results/references/llama/*.h5")]}
    assert len(kept) == 4
    assert list(project.glob("results/saes/**/*.safetensors")) == []
    adapter.write_text(whole)
    snakemake(project, "--rerun-triggers", "mtime", "--", TABLE)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert digests(project) == digests(finished_once)
    assert left_behind(project) == []


@fault(
    "documents",
    "a downloaded wheel vanishes",
    "nothing runs while what was made of it is there; to make that again, the wheel is fetched again by its hash",
)
def test_vanished_wheel(tmp_path, monkeypatch):
    index = tmp_path / "index"
    record = json.dumps({"text": " ".join(WORDS)}) + "\n"
    wheel = make_wheel(index, {"tinydata/text.jsonl": record.encode()})
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    project = make_project(tmp_path / "project", {"llama": "llama"})
    config = read_config(project)
    config["corpora"]["news"]["source"] = source_of(wheel).model_dump(mode="json", exclude_none=True)
    write_config(project, config)
    documents, kept = "results/corpora/news/documents.parquet", project / "results/downloads/tinydata-1.0.whl"
    snakemake(project, documents)
    bits = (project / documents).read_bytes()
    kept.unlink()
    assert planned(project, documents) == {}
    (project / documents).unlink()
    assert planned(project, documents) == {"download_wheel": 1, "build_documents": 1}
    snakemake(project, documents)
    assert (project / documents).read_bytes() == bits


@fault(
    "model, and every stage after it",
    "clocks that differ (a source dated a day ahead)",
    "an error that names both times; with the date mended (`touch`), the same command makes the same bits",
)
def test_clock_skew(finished_once, tmp_path):
    project = copy_of(finished_once, tmp_path)
    ahead = time.time() + 86400
    os.utime(project / "data/llama", (ahead, ahead))
    # Small files are compared by content: text that was only dated otherwise is no other text.
    os.utime(project / "data/news.jsonl", (ahead, ahead))
    assert set(planned(project, TABLE)) == {script for script, _ in STAGES.values()} - {"build_documents"}
    text = snakemake(project, TABLE, fails=True)
    assert "results/models/llama has older modification time" in text
    assert "clock skew" in text
    os.utime(project / "data/llama")
    snakemake(project, TABLE)
    assert digests(project) == digests(finished_once)
    assert planned(project, TABLE) == {}
    assert left_behind(project) == []


@fault(
    "any, by the folder's one lock",
    "two calls on one results folder",
    "the second stops at once and names the lock; the first ends as ever",
)
def test_two_calls_on_one_folder(finished_once, tmp_path):
    project = copy_of(finished_once, tmp_path)
    (project / TABLE).unlink()
    (project / METRICS).unlink()
    with subprocess.Popen(
        command("--rerun-triggers", "mtime", "--", TABLE),
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as first:
        deadline = time.monotonic() + 120
        while not list(project.glob(".snakemake/locks/*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        text = snakemake(project, TABLE, fails=True)
        assert "unlock" in text
        assert first.wait(120) == 0
    assert digests(project) == digests(finished_once)
    assert left_behind(project) == []


@fault(
    "any, by the results folder's own lock",
    "two checkouts that share results by a link",
    "the second stops before its first job and names the call that works there",
)
def test_two_checkouts_on_one_results_folder(finished_once, tmp_path):
    project = copy_of(finished_once, tmp_path)
    (project / TABLE).unlink()
    holder = lock_if_free(project / "results" / RESULTS_LOCK)
    os.write(holder, b"process 1 on another-host in /another/checkout\n")
    try:
        text = snakemake(project, TABLE, fails=True)
    finally:
        os.close(holder)
    assert "process 1 on another-host in /another/checkout works on these results now" in text
    assert not (project / TABLE).exists()
    snakemake(project, TABLE)
    assert digests(project) == digests(finished_once)
    assert not (project / "results" / RESULTS_LOCK).exists()
    assert left_behind(project) == []


@fault(
    "any",
    "kill -9 of the call itself",
    "`make` takes its lock away and goes on; after plain `snakemake`, its message says `snakemake --unlock`",
)
def test_a_killed_call_is_unlocked(finished_once, tmp_path):
    project = copy_of(finished_once, tmp_path)
    (project / TABLE).unlink()
    (project / METRICS).unlink()
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command("--rerun-triggers", "mtime", "--", TABLE), cwd=project, **silent) as call:
        deadline = time.monotonic() + 300
        while not read_holder(project / "results" / RESULTS_LOCK) and time.monotonic() < deadline:
            time.sleep(0.02)
        children = psutil.Process(call.pid).children(recursive=True)
        for process in (psutil.Process(call.pid), *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    assert list(project.glob(".snakemake/locks/*"))
    assert "--unlock" in snakemake(project, TABLE, fails=True)
    done = subprocess.run(
        [sys.executable, "-m", "atlas.unlock", sys.executable, "-m", "snakemake"],
        cwd=project, env=os.environ | {"PYTHONPATH": "workflow"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "unlocking this folder" in done.stderr
    snakemake(project, "--rerun-triggers", "mtime", "--", TABLE)
    assert digests(project) == digests(finished_once)
    assert left_behind(project) == []


def test_the_page_shows_what_tests_assert(request):
    """Rows of the tests that run now are on the page; where all run, nothing else is."""
    if request.config.option.fault_table:
        return  # the page is written at the end of this run
    on_page = read_table(REPOSITORY / "docs/reliability.md")
    asserted = {row for item in request.session.items for row in rows_of(item)}
    assert asserted <= on_page
    files = [REPOSITORY / "tests/sources/test_hub.py", REPOSITORY / "tests/test_sealed.py", Path(__file__)]
    if {item.path for item in request.session.items} >= set(files) and not request.config.option.keyword:
        assert on_page == asserted
