"""Live views of training: TensorBoard and Weights & Biases, beside the curves that every run writes to parquet.

A tracker shows the rows of `History.curves` and nothing else. It changes no bit of the result, takes no part in its
identity, and when it fails, training goes on without it. Each start of a run shows the curves anew from the first step,
so that a view has no step twice and none missing, wherever the run was killed.
"""

import contextlib
import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from atlas.config.tracking import Tracking, Wandb
from atlas.errors import ConfigError

log = logging.getLogger(__name__)

Row = Mapping[str, Any]
_PLACE = ("step", "split")  # of a row; all else are values
_KEY = "WANDB_API_KEY"


@dataclass(frozen=True)
class Tracked:
    """Tracking of one run: settings, the folder for files, and the name that people see."""

    settings: Tracking
    folder: Path
    name: str


class Tracker(Protocol):
    """Shows rows of curves."""

    def show(self, step: int, values: dict[str, float]) -> None:
        """Show values of a step, by ``<split>/<measure>``."""

    def close(self, failed: bool) -> None:
        """Write what is left."""


def require_trackers(settings: Tracking) -> None:
    """Raise ConfigError when what is asked for cannot be had: found before any compute, not after."""
    # tensorboardX writes the files of TensorBoard and brings protobuf only; tensorboard itself brings ten packages,
    # among them a web server and grpc, which belong where the files are looked at.
    for key, wanted, package in (
        ("tensorboard", settings.tensorboard, "tensorboardX"),
        ("wandb", settings.wandb is not None, "wandb"),
    ):
        if wanted and importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"tracking.{key} is asked for, but {package} is not installed: run "
                f"`{sys.executable} -m pip install {package}`, or remove tracking.{key}"
            )
    if settings.wandb is not None and settings.wandb.mode == "online" and not os.environ.get(_KEY):
        raise ConfigError(
            f"tracking.wandb.mode is 'online', but the environment variable {_KEY} is not set; set it, or use mode: "
            "offline and `wandb sync` later"
        )


class Trackers:
    """All trackers of one run. One that fails is left out from then on, and that is logged."""

    def __init__(self) -> None:
        self._open: dict[str, Tracker] = {}

    def start(self, name: str, make: Any, *arguments: Any) -> None:
        """Add a tracker."""
        self._guarded(name, lambda: self._open.update({name: make(*arguments)}))

    def show(self, rows: Sequence[Row]) -> None:
        """Show rows of curves, in order."""
        for row in rows:
            values = {f"{row['split']}/{key}": value for key, value in row.items() if key not in _PLACE}
            values = {name: value for name, value in values.items() if value is not None}
            for name, tracker in list(self._open.items()):
                self._guarded(name, lambda tracker=tracker: tracker.show(row["step"], values))  # noqa: B023 (called now)

    def close(self, failed: bool) -> None:
        """Close every tracker."""
        for name, tracker in list(self._open.items()):
            self._guarded(name, lambda tracker=tracker: tracker.close(failed))

    def _guarded(self, name: str, call: Any) -> None:
        try:
            call()
        except Exception as error:  # a view that fails must not cost hours of training, whatever it raises
            self._open.pop(name, None)
            log.warning(
                "tracking.%s failed and is left out from now on (%s: %s); training.parquet gets all curves",
                name,
                type(error).__name__,
                error,
            )


@contextmanager
def open_trackers(
    tracked: Tracked | None, identity: str, config: dict[str, Any], curves: Sequence[Row]
) -> Iterator[Trackers]:
    """The trackers of a run, with its `curves` so far already shown; closed whatever happens.

    `identity` says which run this is: a resumed run has the same one. `config` is shown beside the curves.
    """
    trackers = Trackers()
    if tracked is not None and tracked.settings.tensorboard:
        trackers.start("tensorboard", _TensorBoard, tracked.folder / "tensorboard")
    if tracked is not None and tracked.settings.wandb is not None:
        trackers.start("wandb", _Wandb, tracked.settings.wandb, tracked.folder, tracked.name, identity[:16], config)
    trackers.show(curves)
    failed = True
    try:
        yield trackers
        failed = False
    finally:
        trackers.close(failed)


class _TensorBoard:
    """Event files of one run."""

    def __init__(self, folder: Path):
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder))

    def show(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, global_step=step)
        self._writer.flush()

    def close(self, failed: bool) -> None:
        self._writer.close()


class _Wandb:
    """A run of Weights & Biases, whose id follows from the identity of the training."""

    def __init__(self, settings: Wandb, folder: Path, name: str, run_id: str, config: dict[str, Any]):
        import wandb  # pyright: ignore[reportMissingImports]  # optional: who asks for it installs it

        folder.mkdir(parents=True, exist_ok=True)
        online = settings.mode == "online"
        if not online:
            for old in folder.glob(f"wandb/offline-run-*-{run_id}"):
                shutil.rmtree(old)
        # Curves, run card and the name of the host: no code, git remote, paths, system metrics, or what is printed.
        only_curves = wandb.Settings(
            disable_git=True,
            save_code=False,
            disable_job_creation=True,
            console="off",
            silent=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
        )
        self._run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            mode=settings.mode,
            dir=str(folder),
            id=run_id,
            name=name,
            config=config,
            resume="allow" if online else None,
            settings=only_curves,
        )
        self._first = self._run.starting_step  # the server has all steps before

    def show(self, step: int, values: dict[str, float]) -> None:
        if step >= self._first:
            self._run.log(values, step=step)

    def close(self, failed: bool) -> None:
        with contextlib.suppress(BrokenPipeError):  # its process was ended by the same SIGTERM
            self._run.finish(exit_code=int(failed))
