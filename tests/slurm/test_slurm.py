"""A study through profiles/slurm on a real SLURM: what jobs get, what happens to those that fail, and the same bits.

Outside CI this is skipped where SLURM is lacking, with the reason; in CI that is a failure.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import one_machine
import psutil
import pytest
import yaml
from one_machine import Slurm, wait_for
from project import REPOSITORY, halting, make_project, read_config, snakemake, standing_still, write_config
from snakemake_executor_plugin_slurm.partitions import read_partition_file

from atlas.config.partitions import check_partitions, slurm_minutes
from atlas.errors import ConfigError
from atlas.studies import cost

pytestmark = pytest.mark.slow

TABLE = "results/llama_study.csv"
STEPS = 1_000
PARTITIONS = {
    "cpu": {"max_runtime": 2880, "max_mem_mb": 60000, "max_threads": 8},
    "gpu": {"max_runtime": 2880, "max_mem_mb": 60000, "max_threads": 8, "max_gpu": 2},
}
# What this machine has no GPU for is computed on its CPU; the devices are granted all the same.
ENVIRONMENT = os.environ | {"ATLAS_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Iterator[Slurm]:
    one_machine.require()
    with one_machine.slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="module")
def troubled(machine, tmp_path_factory) -> Iterator[subprocess.Popen]:
    """The workflow of trouble.smk, started first: SLURM takes a minute to notice that a minute is over."""
    folder = tmp_path_factory.mktemp("troubled")
    shutil.copytree(REPOSITORY / "profiles", folder / "profiles")
    shutil.copy(Path(__file__).with_name("trouble.smk"), folder / "Snakefile")
    write_partitions(folder)
    groups = ("--groups", "member=pair", "--group-components", "pair=2")
    library = ("--config", f"library={REPOSITORY / 'workflow'}")
    with start(folder, *groups, *library, log=folder / "run.log") as process:
        process.folder = folder
        yield process
        process.kill()  # at once; its jobs are cancelled with the machine


@pytest.fixture(scope="module")
def by_gres(machine, tmp_path_factory) -> tuple[Path, list[dict[str, str]]]:
    """The workflow of gres.smk on a partition that refuses --gpus, with a file of partitions; and its jobs."""
    folder = tmp_path_factory.mktemp("by_gres")
    shutil.copytree(REPOSITORY / "profiles", folder / "profiles")
    shutil.copy(Path(__file__).with_name("gres.smk"), folder / "Snakefile")
    write_partitions(folder, {"cpu": PARTITIONS["cpu"], "gresonly": PARTITIONS["gpu"]})
    call = ("--groups", "gres_member=pair", "--group-components", "pair=2", "--default-resources", "gpu_request=gres")
    library = ("--config", f"library={REPOSITORY / 'workflow'}")
    with start(folder, *call, *library, log=folder / "run.log") as controller:
        assert controller.wait(300) == 0, (folder / "run.log").read_text()[-8000:]
    return folder, [job for job in machine.jobs() if job["WorkDir"] == str(folder)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Model, audit and tokens, as one makes them on the login node, where the network is."""
    folder = small_project(tmp_path_factory.mktemp("prepared"))
    corpora = (
        "results/tokens/llama/chat.h5",
        "results/tokens/llama/news.h5",
        "results/corpora/chat/apart_from/chat.json",
        "results/corpora/chat/apart_from/news.json",
    )
    snakemake(folder, "results/audits/llama.json", *corpora)
    return folder


@pytest.fixture(scope="module")
def through_slurm(machine, troubled, prepared, tmp_path_factory) -> tuple[Path, list[dict[str, str]]]:
    """The study, with everything happening to it: trainings displaced, the controller killed and started again."""
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("through_slurm"), dirs_exist_ok=True)
    log = folder / "run.log"
    # Each training stands still at its second checkpoint, so none ends before what is to happen to it has happened.
    halted = folder / "halted"
    environment = ENVIRONMENT | halting(halted, "*/checkpoint.safetensors", times=2, once=False)
    with start(folder, TABLE, log=log, environment=environment) as controller:
        first = wait_for_trainings(halted, controller, log)
        displace(machine)
        # The controller must have seen the end of a displaced training, not of another job alone, before it is killed.
        wait_for(lambda: restarts_a_training(log.read_text()), 300)
        wait_for_trainings(halted, controller, log, apart_from=first)
        before = finished_files(folder)
        for process in [*psutil.Process(controller.pid).children(recursive=True), psutil.Process(controller.pid)]:
            process.kill()
        controller.wait()
    # What docs/scaling.md says to do: the jobs of the killed call run on, under its name.
    names = {job["JobName"] for job in machine.jobs() if job["WorkDir"] == str(folder)}
    assert len(names) == 1
    subprocess.run(["scancel", "--name", *names], check=True)
    wait_for(lambda: not any(machine.running(stage) for stage in ("rule_train", "rule_references")))
    subprocess.run([sys.executable, "-m", "snakemake", "--unlock"], cwd=folder, check=True, capture_output=True)
    with start(folder, TABLE, log=log) as controller:
        assert controller.wait(300) == 0, log.read_text()[-8000:]
    assert {path: stamp for path, stamp in finished_files(folder).items() if path in before} == before
    return folder, [job for job in machine.jobs() if job["WorkDir"] == str(folder)]


@pytest.fixture(scope="module")
def local(prepared, tmp_path_factory) -> Path:
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("local"), dirs_exist_ok=True)
    snakemake(folder, TABLE)
    return folder


def test_results_equal_the_local_run_bit_for_bit(through_slurm, local):
    folder, _ = through_slurm
    ours, theirs = digests(folder), digests(local)
    assert len(ours) == 2 + 2 + 1  # weights, metrics, the table
    assert ours == theirs


def test_each_rule_asks_slurm_for_what_it_says(through_slurm):
    folder, jobs = through_slurm
    asked = {job["Comment"].split("_wildcards")[0]: job for job in jobs}
    model = read_config(folder)["models"]["llama"]
    batch_size = read_config(folder)["recipes"]["topk"]["batch_size"]
    minutes = cost.training_minutes(64, model["d_model"], STEPS, batch_size, on_gpu=False, attempt=1)
    values = cost.dictionary_values(64, model["d_model"])
    held = 16 * values + cost.TRAINED_BYTES * model["harvest"]["train_tokens"]
    assert minutes > 10  # more than what every job gets
    size = cost.ModelSize(model["n_layers"], model["d_model"], 4)
    expected = {
        "rule_train": (cost.megabytes(held, 1), f"00:{minutes}:00"),
        "rule_harvest": (cost.model_memory_mb(size, 1), "00:10:00"),
        # Two evaluations, one after the other.
        "rule_judge_evaluate": (
            cost.evaluation_memory_mb(size, values, 3 * model["harvest"]["eval_tokens"], 1),
            "00:20:00",
        ),
    }
    for name, (memory, limit) in expected.items():
        assert asked[name]["Partition"] == "gpu"
        assert asked[name]["MinMemoryNode"] == f"{memory}M"
        assert asked[name]["TimeLimit"] == limit
        assert asked[name]["NumCPUs"] == "1"
        assert "gpu:1" in asked[name]["TresPerJob"]


def test_displaced_and_killed_trainings_went_on_from_their_checkpoints(through_slurm):
    folder, _ = through_slurm
    cards = [yaml.safe_load(path.read_text()) for path in folder.glob("results/saes/**/run_card.yaml")]
    assert len(cards) == 2
    resumed = [card["cost"]["resumed_from_steps"] for card in cards]
    assert sum(map(len, resumed)) >= 2  # once after the displacement, once after the controller was killed
    assert all(0 < step < STEPS for steps in resumed for step in steps)


def test_only_the_controller_tries_again(through_slurm):
    """Inside an allocation Snakemake runs twice, each time with the job as its job 0."""
    folder, _ = through_slurm
    text = (folder / "run.log").read_text()
    assert "asked to end at step" in text  # logs of failed jobs are in it
    assert re.search(r"Trying to restart job [1-9]", text)
    assert "Trying to restart job 0." not in text


def test_no_finished_job_ran_twice(through_slurm):
    """Across both controllers each job of SLURM completed once; trainings that were ended did not complete."""
    _, jobs = through_slurm
    completed = Counter(job["Comment"] for job in jobs if job["JobState"] == "COMPLETED")
    known = {comment: times for comment, times in completed.items() if not comment.startswith("rule_references")}
    assert set(known.values()) == {1}
    assert {job["Comment"].split("_wildcards")[0] for job in jobs if job["JobState"] != "COMPLETED"} <= {
        "rule_train",
        "rule_references",  # running when the controller was killed
    }


def test_nothing_is_left_behind(through_slurm, machine):
    folder, _ = through_slurm
    assert not list(folder.rglob("*.tmp"))
    assert not list(folder.glob(".snakemake/atlas-jobs/*"))
    assert not list(folder.glob("results/state/**/*.safetensors"))
    assert not list(folder.glob(".snakemake/locks/*"))


def test_concurrent_jobs_see_different_gpus(troubled):
    assert troubled.wait(300) == 0, (troubled.folder / "run.log").read_text()[-8000:]
    paths = [*troubled.folder.glob("gpu-*.txt"), *troubled.folder.glob("member-*.txt")]
    spans = [read_span(path) for path in paths]
    assert {devices for _, devices, _ in spans} == {"0", "1"}
    overlapping = [(a, b) for a in spans for b in spans if a < b and a[0] < b[2] and b[0] < a[2]]
    assert overlapping
    assert all(a[1] != b[1] for a, b in overlapping)
    assert list(Path(f"/tmp/sae-atlas-gpus-{os.getuid()}").glob("slurm-*")) == []  # leases leave nothing on the node


def test_members_of_a_group_take_turns_on_one_gpu(troubled, machine):
    assert troubled.wait(300) == 0
    one, two = sorted(read_span(path) for path in troubled.folder.glob("member-*.txt"))
    assert one[1] == two[1]
    assert one[2] <= two[0]


def test_gpus_are_asked_for_by_gres_where_a_cluster_takes_nothing_else(by_gres):
    """Jobs of the partition that the file names, one device each, and time for both members of the group."""
    folder, jobs = by_gres
    refused = ["sbatch", "--partition=gresonly", "--gpus=1", "--wrap=true", "--output=/dev/null"]
    assert "takes --gres=gpu:N" in subprocess.run(refused, capture_output=True, text=True).stderr
    asked = {job["Comment"].split("_wildcards")[0]: job for job in jobs}
    assert {name: job["TimeLimit"] for name, job in asked.items()} == {
        "rule_gres_alone": "00:03:00",
        "rule_pair_gres_member": "00:06:00",
    }
    for job in asked.values():
        assert (job["Partition"], job["TresPerNode"]) == ("gresonly", "gres:gpu:1")
        assert "TresPerJob" not in job
    assert read_span(folder / "gres-alone.txt")[1] in ("0", "1")
    one, two = sorted(read_span(path) for path in folder.glob("gres-member-*.txt"))
    assert one[1] == two[1] and one[2] <= two[2] - 4


def test_limits_that_sinfo_prints_are_read_rightly_or_refused(machine, tmp_path):
    """Put each limit that `sinfo` prints into the file, as it is and in quotes."""
    limits = {"30": 30, "24:00:00": 1440, "2-12:00:00": 3600, "90": 90, "0-12": 720, "1": 1, "1-0:30": 1470}
    for number, limit in enumerate(limits):
        made = f"PartitionName=limit{number}"
        subprocess.run(["scontrol", "create", made, "Nodes=ALL", f"MaxTime={limit}"], check=True)
    printed = subprocess.run(["sinfo", "-h", "-o", "%P %l"], capture_output=True, text=True, check=True).stdout
    for number in range(len(limits)):
        subprocess.run(["scontrol", "delete", f"PartitionName=limit{number}"], check=True)
    shown = dict(line.split() for line in printed.splitlines())
    assert shown["cpu*"] == "infinite"
    for number, minutes in enumerate(limits.values()):
        text = shown[f"limit{number}"]
        assert slurm_minutes(text) == minutes
        for written in (text, f"'{text}'"):
            path = tmp_path / "partitions.yaml"
            path.write_text(f"partitions:\n  cpu: {{max_runtime: {written}}}\n")
            try:
                check_partitions(path)
            except ConfigError as error:
                assert f"write {minutes}" in str(error)
            else:
                assert read_partition_file(path)[0].limits.max_runtime == minutes


def test_job_above_its_memory_is_tried_again_with_more(troubled, machine):
    assert troubled.wait(300) == 0
    first, second = attempts(machine, "rule_hungry")
    assert (first["JobState"], first["MinMemoryNode"]) == ("FAILED", "600M")
    assert (second["JobState"], second["MinMemoryNode"]) == ("COMPLETED", "2400M")
    assert "exceeded memory limit" in slurm_logs(troubled.folder, "rule_hungry")


def test_job_above_its_time_is_tried_again_with_more(troubled, machine):
    assert troubled.wait(300) == 0
    first, second = attempts(machine, "rule_slow")
    assert (first["JobState"], first["TimeLimit"]) == ("TIMEOUT", "00:01:00")
    assert (second["JobState"], second["TimeLimit"]) == ("COMPLETED", "00:02:00")


def small_project(folder: Path) -> Path:
    """One hook, two seeds, two corpora; trainings that ask for more time than every job gets."""
    make_project(folder, {"llama": "llama"})
    config = read_config(folder)
    model = config["models"]["llama"]
    model["hooks"] = ["resid_post.1"]
    model["harvest"] |= {"train_tokens": 2048}
    config["studies"]["llama_study"] |= {"rows": [{"hook": "resid_post.1"}], "seeds": [0, 1]}
    config["studies"]["llama_study"]["evaluation"] = {"in_sample": "chat", "proxy": [], "oos": ["news"]}
    config["recipes"]["topk"] |= {"steps": STEPS, "batch_size": 1024, "checkpoint_every": 100, "max_epochs": None}
    write_config(folder, config)
    write_partitions(folder)
    return folder


def write_partitions(folder: Path, partitions: dict = PARTITIONS) -> None:
    """The one file that a user edits."""
    (folder / "profiles/slurm/partitions.yaml").write_text(yaml.safe_dump({"partitions": partitions}))


def start(folder: Path, *arguments: str, log: Path, environment: dict[str, str] = ENVIRONMENT) -> subprocess.Popen:
    """A call through the profile; only the pace of status checks is faster."""
    call = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm"]
    call += ["--slurm-init-seconds-before-status-checks", "1"]
    with log.open("a") as stream:
        return subprocess.Popen(
            [*call, *arguments],
            cwd=folder,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def wait_for_trainings(
    halted: Path, controller: subprocess.Popen, log: Path, apart_from: Iterable[int] = ()
) -> set[int]:
    """Until a training stands still that did not before; returns the processes that do. (One may be queued.)"""

    def ready() -> set[int]:
        assert controller.poll() is None, log.read_text()[-8000:]
        return {process.pid for process, _ in standing_still(halted)} - set(apart_from)

    return wait_for(ready, 600, pause=0.05)


def restarts_a_training(text: str) -> bool:
    """Return true once the controller has shown the log of a training that was ended, and tries a job again."""
    return 0 < text.find("asked to end at step") < text.rfind("Trying to restart job")


def displace(machine: Slurm) -> None:
    """A job of a higher partition takes all processors; SLURM sends SIGTERM to what runs there."""
    displaced = machine.running("rule_train")
    call = ["sbatch", "--wait", "--partition=urgent", "--exclusive", "--mem=100", "--output=/dev/null", "--wrap=true"]
    subprocess.run(call, check=True, capture_output=True, timeout=120)
    assert displaced
    ended = {job["JobId"]: job for job in machine.jobs()}
    assert all(ended[number]["JobState"] != "COMPLETED" for number in displaced)


def finished_files(folder: Path) -> dict[Path, int]:
    """When each output of the stages before the trainings was written.

    References run beside the trainings: what ended after the controller's last look it cannot know to be whole, and the
    next one makes it again.
    """
    outputs = ("models", "corpora", "tokens", "audits", "activations")
    paths = [path for name in outputs for path in (folder / "results" / name).rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in paths if path.suffix != ".tmp"}


def attempts(machine: Slurm, comment: str) -> list[dict[str, str]]:
    return sorted((job for job in machine.jobs() if job.get("Comment") == comment), key=lambda job: int(job["JobId"]))


def slurm_logs(folder: Path, rule: str) -> str:
    return "".join(path.read_text() for path in folder.glob(f".snakemake/slurm_logs/{rule}/**/*.log"))


def read_span(path: Path) -> tuple[float, str, float]:
    """Start, devices and end, as a job wrote them."""
    begin, devices, end = path.read_text().split()
    return float(begin), devices, float(end)


def digests(folder: Path) -> dict[str, str]:
    paths = [folder / TABLE, *folder.glob("results/saes/**/*.safetensors"), *folder.glob("results/metrics/**/*.json")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
