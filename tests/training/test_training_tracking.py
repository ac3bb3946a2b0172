"""Live views: every step once, whatever happens; never a bit of the result."""

import inspect
import logging
import sys
import types

import pytest
from tensorboardX.proto.event_pb2 import Event
from training.planted import CPU, PlantedStream, card_fields, recipe

from atlas.config.tracking import Tracking
from atlas.errors import ConfigError
from atlas.training.tracking import Tracked, open_trackers, require_trackers
from atlas.training.train import train_sae

STEPS = [5, 10, 15, 20]


class KilledError(BaseException):
    pass


class KillingStream(PlantedStream):
    fail_at: int | None = None

    def batch(self, step):
        if step == self.fail_at:
            raise KilledError
        return super().batch(step)


def train(folder, tracked, fail_at=None):
    stream = KillingStream(batch_size=256)
    stream.fail_at = fail_at
    settings = recipe("batch_topk", steps=20, threshold_start_step=7, monitor_every=5, checkpoint_every=6)
    monitors = {"in_sample": stream.rows(10**7, 64), "oos": stream.rows(1, 64)}
    train_sae(settings, stream, monitors, 0, CPU, folder / "sae", folder / "state", card_fields(), tracked=tracked)
    return (folder / "sae" / "sae_weights.safetensors").read_bytes(), (folder / "sae" / "training.parquet").read_bytes()


def events(folder):
    """Scalars of all event files, as (tag, step, value), read record by record: length, crc, content, crc."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, place = path.read_bytes(), 0
        while place < len(data):
            length = int.from_bytes(data[place : place + 8], "little")
            event = Event.FromString(data[place + 12 : place + 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            place += length + 16
    return found


def steps_of(scalars, tag):
    return [step for name, step, _ in scalars if name == tag]


def test_tensorboard_gets_every_look_once_and_the_result_does_not_know(tmp_path):
    tracked = Tracked(Tracking(tensorboard=True), tmp_path / "tracking", "m/h")
    assert train(tmp_path / "seen", tracked) == train(tmp_path / "unseen", None)
    scalars = events(tmp_path / "tracking" / "tensorboard")
    for tag in ("train/loss", "train/lr", "in_sample/explained_variance", "oos/l0", "in_sample/silent_share"):
        assert steps_of(scalars, tag) == STEPS
    assert steps_of(scalars, "train/threshold") == [10, 15, 20]  # it has no value before
    assert [value for tag, _, value in scalars if tag == "train/tokens"] == [256.0 * step for step in STEPS]


@pytest.mark.parametrize("fail_at", [3, 11, 13, 19])
def test_after_a_kill_no_step_is_twice_or_missing(tmp_path, fail_at):
    """Killed at 11, the run has shown step 10 and goes on from 6; killed at 3, nothing was kept."""
    tracked = Tracked(Tracking(tensorboard=True), tmp_path / "tracking", "m/h")
    with pytest.raises(KilledError):
        train(tmp_path, tracked, fail_at)
    train(tmp_path, tracked)
    assert steps_of(events(tmp_path / "tracking" / "tensorboard"), "train/loss") == STEPS


def test_turned_on_halfway_the_view_is_whole(tmp_path):
    with pytest.raises(KilledError):
        train(tmp_path, None, fail_at=13)
    train(tmp_path, Tracked(Tracking(tensorboard=True), tmp_path / "tracking", "m/h"))
    assert steps_of(events(tmp_path / "tracking" / "tensorboard"), "train/loss") == STEPS


class FakeRun:
    def __init__(self, starting_step=0):
        self.starting_step, self.logged, self.exit_code = starting_step, [], None

    def log(self, data, step=None, commit=None):
        self.logged.append((step, data))

    def finish(self, exit_code=None):
        self.exit_code = exit_code


@pytest.fixture
def wandb(monkeypatch):
    """A module with the signatures of wandb 0.31: an argument that it does not have is an error."""
    module, module.starting_step = types.ModuleType("wandb"), 0
    module.runs, module.calls = [], []

    def init(
        entity=None, project=None, dir=None, id=None, name=None, config=None, mode=None, resume=None, settings=None
    ):
        module.calls.append({key: value for key, value in locals().items() if key != "module"})
        module.runs.append(FakeRun(module.starting_step))
        return module.runs[-1]

    class Settings:
        def __init__(
            self,
            *,
            disable_git,
            save_code,
            disable_job_creation,
            console,
            silent,
            x_disable_meta,
            x_disable_stats,
            x_disable_machine_info,
        ):
            self.given = {key: value for key, value in locals().items() if key != "self"}

    module.init, module.Settings, module.__spec__ = init, Settings, types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_gets_the_curves_and_the_card_and_nothing_else(tmp_path, wandb):
    tracked = Tracked(Tracking(wandb={"project": "p", "entity": "e"}), tmp_path / "tracking", "m/h")
    assert train(tmp_path / "seen", tracked) == train(tmp_path / "unseen", None)
    (call,), (run,) = wandb.calls, wandb.runs
    assert (call["project"], call["entity"], call["mode"], call["name"]) == ("p", "e", "offline", "m/h")
    assert call["dir"] == str(tmp_path / "tracking")
    assert call["config"]["recipe"]["k"] == 3 and call["config"]["hook"] == "resid_post.2"
    assert call["settings"].given["disable_git"] and not call["settings"].given["save_code"]
    assert sorted({step for step, _ in run.logged}) == STEPS
    assert run.logged[0][1]["train/loss"] > 0
    assert run.exit_code == 0


def test_a_resumed_wandb_run_has_the_same_id_and_logs_what_the_server_lacks(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    tracked = Tracked(Tracking(wandb={"project": "p", "mode": "online"}), tmp_path / "tracking", "m/h")
    with pytest.raises(KilledError):
        train(tmp_path, tracked, fail_at=13)
    assert wandb.runs[0].exit_code == 1
    wandb.starting_step = 11  # what the server says after step 10
    train(tmp_path, tracked)
    first, second = wandb.calls
    assert first["id"] == second["id"] and first["resume"] == second["resume"] == "allow"
    assert [step for step, data in wandb.runs[1].logged if "train/loss" in data] == [15, 20]
    assert "secret" not in repr(wandb.calls)


def test_an_offline_run_is_begun_anew(tmp_path, wandb):
    tracked = Tracked(Tracking(wandb={"project": "p"}), tmp_path / "tracking", "m/h")
    with pytest.raises(KilledError):
        train(tmp_path, tracked, fail_at=13)
    identity = wandb.calls[0]["id"]
    for name in (f"offline-run-20260101_000000-{identity}", "offline-run-20260101_000000-another"):
        (tmp_path / "tracking" / "wandb" / name).mkdir(parents=True)
    train(tmp_path, tracked)
    assert [path.name for path in (tmp_path / "tracking" / "wandb").iterdir()] == [
        "offline-run-20260101_000000-another"
    ]
    assert sorted({step for step, _ in wandb.runs[1].logged}) == STEPS


def test_a_tracker_that_fails_costs_no_training(tmp_path, wandb, caplog):
    def broken(self, data, step=None, commit=None):
        raise ConnectionError("no route to host")

    wandb.init = lambda **_: types.SimpleNamespace(starting_step=0, log=types.MethodType(broken, wandb))
    tracked = Tracked(Tracking(wandb={"project": "p"}, tensorboard=True), tmp_path / "tracking", "m/h")
    with caplog.at_level(logging.WARNING):
        assert train(tmp_path / "seen", tracked) == train(tmp_path / "unseen", None)
    assert caplog.text.count("tracking.wandb failed and is left out from now on (ConnectionError: no route") == 1
    assert steps_of(events(tmp_path / "tracking" / "tensorboard"), "train/loss") == STEPS


def test_what_cannot_be_tracked_is_said_before_training(monkeypatch):
    monkeypatch.setattr("atlas.training.tracking.importlib.util.find_spec", lambda name: None)
    require_trackers(Tracking())
    for settings, package in (
        (Tracking(tensorboard=True), "tensorboardX"),
        (Tracking(wandb={"project": "p"}), "wandb"),
    ):
        with pytest.raises(
            ConfigError, match=rf"{package} is not installed: run `.* -m pip install {package}`, or remove"
        ):
            require_trackers(settings)
    monkeypatch.setattr("atlas.training.tracking.importlib.util.find_spec", lambda name: object())
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="environment variable WANDB_API_KEY is not set"):
        require_trackers(Tracking(wandb={"project": "p", "mode": "online"}))
    monkeypatch.setenv("WANDB_API_KEY", "k")
    require_trackers(Tracking(wandb={"project": "p", "mode": "online"}))


def test_the_fake_has_the_arguments_that_are_used(wandb, tmp_path):
    """Were `init` called with an argument that the fake lacks, tracking would be left out with a TypeError."""
    assert "kwargs" not in str(inspect.signature(wandb.init))
    with open_trackers(Tracked(Tracking(wandb={"project": "p"}), tmp_path, "n"), "ab" * 32, {}, []) as trackers:
        assert list(trackers._open) == ["wandb"]
