"""The real workflow, run by the real snakemake, on tiny models: from files of text to tables and figures."""

import contextlib
import json
import os
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from project import (
    REPOSITORY,
    command,
    copy_of,
    digests,
    halting,
    heed_ctrl_c,
    make_project,
    planned,
    read_config,
    snakemake,
    wait_for_halt,
    warm_command,
    write_config,
)

from tiny import tiny_llama

pytestmark = pytest.mark.slow

TABLE = "results/llama_study.csv"


@pytest.fixture(scope="module")
def finished(finished_once, tmp_path_factory) -> Path:
    """A project after an uninterrupted run of the Llama study."""
    return copy_of(finished_once, tmp_path_factory.mktemp("finished"))


def test_table_has_a_row_per_sae_and_corpus(finished):
    table = pd.read_csv(finished / TABLE)
    assert len(table) == 2 * 3
    assert {tuple(sorted(group.corpus)) for _, group in table.groupby(["hook", "seed"])} == {("chat", "news", "wiki")}
    assert set(table.role) == {"in_sample", "proxy", "oos"}
    assert (table.atlas_l0 - 4).abs().max() < 0.4
    assert table.atlas_loss_clean.notna().all()


def test_second_run_does_nothing(finished):
    assert planned(finished, TABLE) == {}


def test_changed_k_reruns_that_sae_only(finished):
    config = read_config(finished)
    changed = read_config(finished)
    changed["studies"]["llama_study"]["rows"][1]["override"]["k"] = 5
    write_config(finished, changed)
    try:
        assert planned(finished, TABLE) == {"train": 1, "evaluate": 1, "study_table": 1}
        text = snakemake(finished, "--dry-run", TABLE)
        assert "resid_post.1, mix chat" in text
        assert "resid_post.0, mix chat" not in text
    finally:
        write_config(finished, config)
    assert planned(finished, TABLE) == {}


def test_model_is_added_by_the_lines_of_the_documentation(finished):
    """docs/adding_a_model.md, with the sizes of a tiny model: the audit passes, and the study is planned whole."""
    page = (REPOSITORY / "docs/adding_a_model.md").read_text()
    added = yaml.safe_load(page.split("<!-- example:")[1].split("```yaml\n")[1].split("```")[0])
    tiny_llama(finished / "data/my-model", seed=1)
    harvest = read_config(finished)["models"]["llama"]["harvest"]
    added["models"]["my-model"] |= {"n_layers": 4, "d_model": 32, "dtype": "float32", "harvest": harvest}
    added["studies"]["my_study"]["rows"][0]["override"] = {"n_latents": 64, "k": 4}
    config, before = read_config(finished), digests(finished)
    write_config(finished, {key: value | added.get(key, {}) for key, value in config.items()})
    try:
        snakemake(finished, "results/audits/my-model.json")
        assert json.loads((finished / "results/audits/my-model.json").read_text())["status"] == "pass"
        assert planned(finished, "results/my_study.csv") == {
            "tokenise": 1,
            "harvest": 4,
            "train": 1,
            "references": 2,
            "evaluate": 1,
            "study_table": 1,
        }
        assert digests(finished) == before
    finally:
        write_config(finished, config)


def test_model_of_no_study_is_audited(finished):
    """On the first corpus that is trained on; the next study to use it finds the audit done."""
    config = read_config(finished)
    write_config(finished, config | {"models": config["models"] | {"spare": config["models"]["llama"]}})
    try:
        snakemake(finished, "results/audits/spare.json")
        assert json.loads((finished / "results/audits/spare.json").read_text())["status"] == "pass"
        assert "'spar' is not in models of the configuration, which has: llama, spare" in snakemake(
            finished, "--dry-run", "results/audits/spar.json", fails=True
        )
    finally:
        write_config(finished, config)


def test_source_that_is_not_there_is_named_by_its_key(finished):
    config, changed = read_config(finished), read_config(finished)
    changed["corpora"]["more"] = {"source": {"kind": "path", "path": "data/wikki.jsonl"}}
    write_config(finished, changed)
    try:
        text = snakemake(finished, "--dry-run", "results/corpora/more/documents.parquet", fails=True)
        assert f"corpora.more.source.path is 'data/wikki.jsonl', and {finished}/data/wikki.jsonl does not exist" in text
    finally:
        write_config(finished, config)


def test_python_whose_path_a_shell_would_cut_is_refused_at_once(finished):
    call = warm_command("--dry-run", TABLE)
    call[2] = "/some where/.venv/bin/python"
    done = subprocess.run(call, cwd=finished, capture_output=True, text=True)
    assert done.returncode == 1
    refusal = f"{call[2]}: the path of the Python that runs Snakemake has a space"
    assert refusal in done.stdout + done.stderr


def test_watching_reruns_nothing(finished):
    config = read_config(finished)
    write_config(finished, config | {"tracking": {"tensorboard": True}})
    try:
        assert planned(finished, TABLE) == {}
    finally:
        write_config(finished, config)


def test_trainings_of_a_study_are_compared_and_reported(finished):
    pages = ["results/run_cards/llama_study.html", "results/run_cards/llama_study/0-1.html"]
    targets = ["results/llama_study_runs.csv", "results/figures/llama_study_training.pdf", *pages]
    snakemake(finished, *targets)
    runs = pd.read_csv(finished / "results/llama_study_runs.csv")
    assert list(runs["sae.n_latents"]) == [64, 48]
    assert (runs["outcome.in_sample.l0"] - 4).abs().max() < 0.4
    assert runs.warnings.str.contains("rows_repeat").all()
    assert (finished / "results/figures/llama_study_training.pdf").stat().st_size > 1000
    assert "sae.n_latents" in (finished / pages[1]).read_text()
    text = snakemake(finished, "--dry-run", "results/run_cards/llama_study/0-7.html", fails=True)
    assert "run 7 is not one of llama_study" in text

    snakemake(finished, "--report", "report.zip", *targets)
    with zipfile.ZipFile(finished / "report.zip") as report:
        assert report.testzip() is None
        index = next(report.read(name).decode() for name in report.namelist() if name.endswith("report.html"))
    for shown in ("SAE Atlas", "run cards and differences", "trainings, curves", "study_runs"):
        assert shown in index


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('code=code_of("train"),', "", 'its param `code` is not code_of("train")'),
        ('code=code_of("train"),', 'code=code_of("harvest"),', 'its param `code` is not code_of("train")'),
        ('code=code_of("train"),', 'code=code_of("traim"),', "scripts/traim.py: no such file"),
        ('"../scripts/train.py"', '"../scripts/traim.py"', 'its param `code` is not code_of("traim")'),
    ],
)
def test_a_rule_without_the_hash_of_its_script_is_refused(finished, old, new, message):
    with edited(finished / "workflow/rules/training.smk", old, new):
        assert message in snakemake(finished, "--dry-run", TABLE, fails=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("references.run_references", "references.run_reference", "the rule names atlas.evaluation.references.run_ref"),
        ("        loss_tokens=CONFIG.evaluation.loss_tokens,\n", "", "gives nothing for its parameter loss_tokens"),
        ("loss_tokens=", "wide=1,\n        loss_tokens=", "rule references gives 'wide', which atlas.evaluation"),
        ("call=function(", "calls=function(", "has no param call=function(...)"),
    ],
)
def test_a_rule_that_does_not_fit_its_function_is_refused(finished, old, new, message):
    with edited(finished / "workflow/rules/evaluation.smk", old, new):
        assert message in snakemake(finished, "--dry-run", TABLE, fails=True)


@pytest.mark.parametrize(
    ("file", "old", "new", "jobs"),
    [
        # A root module: which activations are massive.
        (
            "atlas/massive.py",
            "MASSIVE_FACTOR = 10.0",
            "MASSIVE_FACTOR = 3.0",
            {"audit_model": 1, "harvest": 5, "train": 2, "references": 3, "evaluate": 2, "study_table": 1},
        ),
        ("atlas/evaluation/sparsity.py", "", "EDITED = 1\n", {"evaluate": 2, "study_table": 1}),
        ("atlas/studies/published.csv", "", "\n", {"study_table": 1}),
        ("scripts/study_table.py", "", "EDITED = 1\n", {"study_table": 1}),
        # Comments, docstrings and keys that no job reads plan nothing.
        ("atlas/training/tracking.py", "", "# edited\n", {}),
        ("atlas/massive.py", '"""', '"""Again: ', {}),
        ("scripts/train.py", "", "# edited\n", {}),
        ("atlas/config/site.py", "", "EDITED = 1\n", {}),
    ],
)
def test_an_edit_plans_what_it_can_change(finished, file, old, new, jobs):
    with edited(finished / "workflow" / file, old, new):
        assert planned(finished, TABLE) == jobs


@contextlib.contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    """Replace the first `old` of a file, or append; as it was, with its time, afterwards."""
    original, status = path.read_text(), path.stat()
    path.write_text(original.replace(old, new, 1) if old else original + new)
    assert path.read_text() != original
    yield
    path.write_text(original)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_killed_and_resumed_equals_uninterrupted(finished, tmp_path):
    """`kill -9` of a harvest, a training and an evaluation; the same command completes, with the same bits."""
    project = make_project(tmp_path, {"llama": "llama"})
    write_config(project, read_config(project) | {"tracking": {"tensorboard": True}})  # changes no bit
    state = project / "results" / "state"
    tokens = [f"results/tokens/llama/{corpus}.h5" for corpus in ("chat", "wiki", "news")]
    snakemake(project, "results/audits/llama.json", *tokens)
    kill_job(project, "harvest", "*/activations/*.h5")
    assert list(project.rglob("activations/**/*.h5.tmp"))
    kill_job(project, "train", "*/checkpoint.safetensors", times=2)
    assert list(state.rglob("*.safetensors"))
    kill_job(project, "evaluate", "*/metrics.json")
    # Now: a training that ended while the workflow was stopped counts as unfinished, and is made again with a new log.
    assert any("resumed from" in path.read_text() for path in project.glob("results/logs/train/**/*.log"))
    snakemake(project, TABLE)
    assert not list(state.rglob("*.safetensors"))
    assert len(list(project.glob("results/tracking/llama/*/chat/topk/seed-0/tensorboard/events.*"))) == 2
    assert digests(project) == digests(finished)


def test_damaged_shard_is_named_and_made_again_after_deletion(finished):
    shard = finished / "results/activations/llama/chat/train-001.h5"
    good = shard.read_bytes()
    middle = len(good) // 2  # among the rows of resid_post.0
    weights = next(finished.glob("results/saes/llama/resid_post.0/**/sae_weights.safetensors"))
    before = digests(finished)
    weights.unlink()
    shard.write_bytes(good[:middle] + bytes([good[middle] ^ 4]) + good[middle + 1 :])
    text = snakemake(finished, "--rerun-triggers", "params", "--", TABLE, fails=True)
    assert "train-001.h5" in text
    assert "delete this file and run again" in text
    assert not weights.exists()
    shard.unlink()
    snakemake(finished, TABLE, str(weights.relative_to(finished)))
    assert digests(finished) == before


def test_preempted_training_is_tried_again_by_the_same_run(finished, tmp_path):
    """SIGTERM is what a scheduler sends: the job ends with 143, Snakemake tries again, and it goes on."""
    before = digests(finished)
    weights = next(finished.glob("results/saes/llama/resid_post.0/**/sae_weights.safetensors"))
    weights.unlink()
    with subprocess.Popen(
        command("--rerun-triggers", "params", "--", str(weights.relative_to(finished))),
        cwd=finished,
        env=os.environ | halting(tmp_path / "halted", "*/checkpoint.safetensors", times=2),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for child in wait_for_halt(process, tmp_path / "halted", "train"):
            child.terminate()
            child.resume()
        text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text
    assert "Trying to restart job" in text
    assert digests(finished) == before
    card = yaml.safe_load((weights.parent / "run_card.yaml").read_text())
    assert len(card["cost"]["resumed_from_steps"]) == 1


def kill_job(project: Path, script: str, before: str, times: int = 1) -> None:
    """Kill the jobs of `script` as one is about to rename a file for the n-th time, and let the workflow end."""
    halted = project / f"halted-{script}"
    with subprocess.Popen(
        command("--retries", "0", TABLE),
        cwd=project,
        env=os.environ | halting(halted, before, times),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    ) as process:
        jobs = wait_for_halt(process, halted, script)
        # The workflow stands still until its Ctrl-C waits for it: else it may try the killed job again before.
        os.kill(process.pid, signal.SIGSTOP)
        for child in jobs:
            child.kill()
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGCONT)
        process.wait(timeout=240)
    # Whatever status it ends with: the table is not there.
    assert not (project / TABLE).exists()
