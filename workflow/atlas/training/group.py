"""Many SAEs from one pass: a model is run window by window, and every SAE of a group trains on each window."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import torch

from atlas.activations.fill import Filler
from atlas.activations.mixing import looked_at, measure_mixing
from atlas.activations.plan import Window
from atlas.activations.store import Shard, shards_by_corpus
from atlas.activations.stream import BatchStream
from atlas.activations.windowed import Windowed
from atlas.config.data import Harvest
from atlas.corpora.tokens import TokenSplit, read_tokens
from atlas.devices import use_threads
from atlas.errors import StoreError, TrainingError
from atlas.models.gate import require_passed
from atlas.models.load import LoadedModel, load_model
from atlas.prepared import read_identity
from atlas.training.lock import only_process
from atlas.training.preemption import Preempted, listen
from atlas.training.rounds import WindowUse, most_at_hand, needed, next_window, order_of_windows
from atlas.training.run import (
    Asked,
    card_of,
    expected_of,
    require_distinct,
    require_enough_rows,
    samples_of,
    stream_of,
)
from atlas.training.tracking import Tracked, require_trackers
from atlas.training.train import Training

log = logging.getLogger(__name__)

# Sections of the run card that are known when all windows have passed.
_LATER = ("epochs", "mixing")


@dataclass(frozen=True)
class GroupInputs:
    """Files of a group: prepared model folder and its audit, tokens of each corpus, facts of each corpus' first part,
    corpus summaries, eval shards to watch.
    """

    model: Path
    audit: Path
    tokens: list[Path]
    facts: list[Path]
    corpora: list[Path]
    monitors: list[Path]


@dataclass(frozen=True)
class GroupMember:
    """One SAE of a group: its settings, reports that its evaluation text is apart, its folders, and its threads."""

    asked: Asked
    folder: Path
    state: Path
    apart: list[Path] = field(default_factory=list)
    tracked: Tracked | None = None
    threads: int = 1

    @property
    def name(self) -> str:
        """Return its name in logs."""
        names = self.asked.names
        return f"{self.asked.hook}/{names['mix']}/{names['recipe']}/seed-{self.asked.seed}"


def train_group(
    inputs: GroupInputs,
    members: Sequence[GroupMember],
    harvest: Harvest,
    device: torch.device,
    windows: Path,
    model_device: torch.device | None = None,
    model_threads: int = 1,
) -> None:
    """Train all SAEs of a group from one pass of their model over their corpora.

    Each is the SAE that `run_training` makes from stored shards with the same window, to the bit, on the same device
    and with the same threads. It is published when its last step is made. Checkpoints are those of single trainings:
    a killed group goes on from them, and runs the model again for windows that are not passed. `windows` is the folder
    of windows that are too large for memory. The model is on `model_device`, which is `device` if not given.

    Raises StoreError for files that do not belong together and windows that fit nowhere, TrainingError for what makes a
    result meaningless, AuditError for a model without a passed audit, and Preempted after SIGTERM.
    """
    for member in members:
        if member.tracked is not None:
            require_trackers(member.tracked.settings)
    with ExitStack() as stack:
        for member in members:
            stack.enter_context(only_process(member.state))
        group = _Group(inputs, members, harvest, device, windows, model_device or device, model_threads)
        for training in group.trainings:
            stack.enter_context(training.running())
        group.train(stack.enter_context(listen()))
    for member in members:
        shutil.rmtree(member.state, ignore_errors=True)
    shutil.rmtree(windows, ignore_errors=True)


class _Group:
    """The streams and trainings of all members, and the windows that they share."""

    def __init__(
        self,
        inputs: GroupInputs,
        members: Sequence[GroupMember],
        harvest: Harvest,
        device: torch.device,
        folder: Path,
        model_device: torch.device,
        model_threads: int,
    ):
        self._inputs, self._members, self._harvest = inputs, members, harvest
        self._device, self._model_device, self._model_threads = device, model_device, model_threads
        self._granted = torch.get_num_threads()
        self._identity = read_identity(inputs.model)
        expected = expected_of(self._identity)
        self._facts = shards_by_corpus(inputs.facts, expected)
        self._splits = {path.stem: read_tokens(path, "train") for path in inputs.tokens}
        _require_same_text(self._facts, self._splits, harvest)
        watched = shards_by_corpus(inputs.monitors, expected)
        require_distinct(self._facts, watched)
        self._hooks = list(dict.fromkeys(hook for member in members for hook in member.asked.hooks.names))
        self._filler = Filler(self._splits, harvest, self._hooks, self._identity["d_model"], folder)
        rows = {name: harvest.of(name).shard_sizes("train") for name in self._splits}
        documents = {name: split.document[split.counted] for name, split in self._splits.items()}
        assert harvest.window_shards is not None  # a model that streams has windows
        self._windowed = Windowed(harvest.window_shards, self._facts, rows, documents)
        self._streams = [stream_of(member.asked, self._filler.shards, self._windowed) for member in members]
        for member, stream in zip(members, self._streams, strict=True):
            require_enough_rows(member.asked, stream, self._windowed)
        _require_device_memory(members, self._identity, inputs.model, device, model_device)
        self.trainings = [self._begin(*each, watched, device) for each in zip(members, self._streams, strict=True)]
        self._passages = [WindowUse(stream.plan.use, stream.steps) for stream in self._streams]

    def train(self, asked_to_end: Event) -> None:
        """Fill one window after the other, and train every SAE as far as the windows at hand allow."""
        order = order_of_windows(self._passages)
        sizes = {window: self._filler.size(window) for window in order}
        self._filler.require_space(most_at_hand(self._passages, sizes, self._steps))
        for number, training in enumerate(self.trainings):
            if training.step == training.recipe.steps:
                self._publish(number)
        try:
            while any(training.step < training.recipe.steps for training in self.trainings):
                window = next_window(order, self._passages, self._steps, self._filler.at_hand)
                if window is None:
                    raise TrainingError(f"no window is left at steps {self._steps}: a fault of the schedule, report it")
                self._fill(window, asked_to_end)
                for number in range(len(self.trainings)):
                    self._advance(number, asked_to_end)
                for passed in [w for w in self._filler.at_hand if not needed(w, self._passages, self._steps)]:
                    for stream in self._streams:
                        stream.forget(passed)
                    self._filler.empty(passed)
        except Preempted:
            for training in self.trainings:
                training.save()
            raise

    @property
    def _steps(self) -> list[int]:
        return [training.step for training in self.trainings]

    @cached_property
    def _loaded(self) -> LoadedModel:
        loaded = load_model(self._inputs.model, self._model_device)
        require_passed(self._inputs.audit, loaded, self._hooks)
        return loaded

    def _begin(self, member: GroupMember, stream: BatchStream, watched: Mapping[str, list[Shard]], device) -> Training:
        asked = member.asked
        monitors, targets = samples_of(asked, watched, self._facts)
        corpora = [path for path in self._inputs.corpora if path.parent.name in asked.mix.corpora]
        rows = self._windowed.rows
        card = card_of(asked, self._identity, corpora, member.apart, stream, self._facts, rows, self._windowed)
        training = Training(
            asked.recipe,
            stream,
            monitors,
            asked.seed,
            device,
            member.folder,
            member.state,
            card,
            targets,
            member.tracked,
            label=f"train {member.name}",
            filled_later=_LATER,
        )
        if training.account:
            stream.recall(training.account)
        return training

    def _fill(self, window: Window, asked_to_end: Event) -> None:
        use_threads(min(self._model_threads, self._granted))
        with _current(self._model_device):
            self._filler.fill(window, self._loaded, self._ends_when(asked_to_end))

    def _ends_when(self, asked_to_end: Event) -> Callable[[], None]:
        def check() -> None:
            if asked_to_end.is_set():
                log.warning("asked to end while a window was filled, at steps %s; run again to go on", self._steps)
                raise Preempted(min(self._steps))

        return check

    def _advance(self, number: int, asked_to_end: Event) -> None:
        training, stream, passage = self.trainings[number], self._streams[number], self._passages[number]
        until = passage.reach(training.step, self._filler.at_hand)
        if until == training.step:
            return
        use_threads(min(self._members[number].threads, self._granted))
        stream.end = until
        for step in looked_at(stream.steps):
            if training.step <= step < until:
                stream.pairs(step)
        with _current(self._device):
            training.advance(until, asked_to_end)
        if training.step == training.recipe.steps:
            training.save()  # kept until all are done: a job that fails loses its outputs
            self._publish(number)

    def _publish(self, number: int) -> None:
        stream = self._streams[number]
        use_threads(min(self._members[number].threads, self._granted))
        later = {"epochs": stream.epochs(), "mixing": asdict(measure_mixing(stream))}
        self.trainings[number].publish(later)
        log.info("published %s", self._members[number].folder)


def _current(device: torch.device) -> AbstractContextManager:
    """Make a GPU the current one, on which Triton starts its kernels."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _require_same_text(facts: Mapping[str, list[Shard]], splits: Mapping[str, TokenSplit], harvest: Harvest) -> None:
    """Raise StoreError unless facts are of the text that is streamed, and stored as the configuration says."""
    for name, split in splits.items():
        if name not in facts:
            raise StoreError(
                f"corpus {name!r} has tokens, but no facts: files of facts are of {sorted(facts)}; expected "
                "both of each corpus"
            )
        if split.tokens.size != (asked := harvest.of(name).train_tokens):
            raise StoreError(
                f"corpus {name!r} has {split.tokens.size:,} tokens to train on, the model's harvest asks for "
                f"{asked:,}: delete its token file and run again; it will be made anew"
            )
        expected = {"corpus_fingerprint": split.fingerprint, "context_length": split.context_length}
        expected |= {"storage_dtype": harvest.storage_dtype, "batch_contexts": harvest.batch_contexts}
        for shard in facts[name]:
            for key, value in expected.items():
                if shard.identity[key] != value:
                    raise StoreError(
                        f"{shard.path}: {key} is {shard.identity[key]!r}, but the text that the group streams has "
                        f"{value!r}; delete this file and run again"
                    )


def _require_device_memory(
    members: Sequence[GroupMember],
    identity: Mapping[str, Any],
    model: Path,
    device: torch.device,
    model_device: torch.device,
) -> None:
    """Raise TrainingError when a GPU has less free memory than the weights that go there."""
    # Weights, gradients and two moments, float32.
    saes = sum(4 * 4 * 2 * member.asked.recipe.n_latents * identity["d_model"] for member in members)
    weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    needs: dict[torch.device, int] = {}
    for place, size in ((device, saes), (model_device, weights)):
        needs[place] = needs.get(place, 0) + size
    for place, size in needs.items():
        if place.type != "cuda":
            continue
        free = torch.cuda.mem_get_info(place)[0]
        if size > free:
            raise TrainingError(
                f"{place}: {len(members)} SAEs and the model need {size / 1e9:.3g} GB there ({saes / 1e9:.3g} GB of "
                f"SAEs, {weights / 1e9:.3g} GB of model weights), {free / 1e9:.3g} GB are free; lower group_memory_mb, "
                "or grant more GPUs"
            )
