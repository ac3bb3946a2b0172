"""A tiny model with two training corpora, trained from stored shards and from a stream with the same window."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from training.planted import recipe

from atlas.activations.facts import harvest_facts, write_facts
from atlas.activations.harvest import harvest_shard
from atlas.activations.store import Shard
from atlas.config.data import Harvest
from atlas.config.mixes import Mix
from atlas.corpora.packing import Packed
from atlas.corpora.tokens import datasets_of, read_tokens, write_split
from atlas.files import write_json
from atlas.hdf5 import reserved_hdf5
from atlas.models.load import LoadedModel
from atlas.training.group import GroupInputs, GroupMember, train_group
from atlas.training.run import Asked, TrainingInputs, run_training
from tiny import prepare_and_load, tiny_llama

CPU = torch.device("cpu")
HOOKS = ["resid_post.0", "resid_post.1"]
LENGTH = 16
ONE = Mix(phases=[{"until": 1.0, "weights": {"chat": 1.0}}])
BOTH = Mix(phases=[{"until": 1.0, "weights": {"chat": 0.7, "news": 0.3}}])
CURRICULUM = Mix(
    phases=[
        {"until": 0.4, "weights": {"chat": 0.9, "news": 0.1}},
        {"until": 1.0, "weights": {"chat": 0.4, "news": 0.6}},
    ]
)
HARVEST = Harvest(
    context_length=LENGTH,
    batch_contexts=4,
    train_tokens=80 * LENGTH,
    eval_tokens=20 * LENGTH,
    shard_tokens=20 * LENGTH,
    mode="stream",
    window_shards=2,
    corpora={"news": {"train_tokens": 60 * LENGTH}},
)


@dataclass(frozen=True)
class Scene:
    """Return the paths of the scene's files."""

    folder: Path
    loaded: LoadedModel

    @property
    def model(self) -> Path:
        return self.folder / "models" / "tiny"

    def shards(self, split: str, *corpora: str) -> list[Path]:
        return sorted(path for name in corpora for path in (self.folder / "store" / name).glob(f"{split}-*.h5"))

    def facts(self, kind: str) -> list[Path]:
        return sorted((self.folder / kind).glob("*/facts-*.h5"))


def make_scene(folder: Path) -> Scene:
    """Prepared model, tokens, stored shards, facts from the store and from a stream, summaries, a passed audit."""
    loaded = prepare_and_load(tiny_llama(folder / "source"), folder / "models" / "tiny", n_layers=4)
    scene = Scene(folder, loaded)
    harvest = HARVEST
    for number, (name, split, contexts) in enumerate(
        [("chat", "train", 80), ("news", "train", 60), ("chat-held", "eval", 20), ("wiki", "eval", 20)]
    ):
        text = write_tokens(folder / "tokens" / f"{name}.h5", name, split, contexts, number)
        for shard in range(harvest.of(name).n_shards(split)):
            path = folder / "store" / name / f"{split}-{shard:03d}.h5"
            harvest_shard(loaded, text, shard, harvest.of(name), HOOKS, path)
        if split == "train":
            write_facts(Shard.open(scene.shards("train", name)[0]), 1, folder / "from-store" / name / "facts-000.h5")
            harvest_facts(loaded, text, 0, harvest.of(name), HOOKS, folder / "from-stream" / name / "facts-000.h5")
        corpus = {"name": name, "source": {"kind": "path"}, "licence": "MIT", "template": "plain", "fingerprint": {}}
        write_json(folder / "corpora" / name / "corpus.json", corpus)
    norms = {hook: {} for hook in HOOKS}
    audit = {"status": "pass", "weights_sha256": loaded.identity["weights_sha256"], "norms": norms}
    write_json(folder / "audit.json", audit)
    return scene


def write_tokens(path: Path, name: str, split: str, n_contexts: int, seed: int):
    """A token file of random letters, three contexts a document; the first of each context is not counted."""
    ids = np.random.default_rng(seed).integers(6, 60, (n_contexts, LENGTH)).astype(np.uint32)
    document = np.repeat(np.arange(n_contexts, dtype=np.int32) // 3, LENGTH).reshape(n_contexts, LENGTH)
    counted = np.ones((n_contexts, LENGTH), bool)
    counted[:, 0] = False
    with reserved_hdf5(path, datasets_of({split: (n_contexts, LENGTH)})) as file:
        file.attrs.update(corpus=name, context_length=LENGTH)
        write_split(file[split], [Packed(ids, document, counted)])
    return read_tokens(path, split)


def asked(architecture: str, hook: str, mix: Mix, seed: int = 0, **overrides) -> Asked:
    settings = recipe(architecture, **({"batch_size": 64, "dead_feature_tokens": 512} | overrides))
    return Asked(
        hook=hook,
        mix=mix,
        recipe=settings,
        seed=seed,
        names={"model": "tiny", "mix": f"{len(mix.phases)}-{len(mix.corpora)}", "recipe": architecture},
        roles={"chat-held": "in_sample", "wiki": "oos"},
        monitored={"in_sample": "chat-held", "oos": "wiki"},
        monitor_rows=100,
    )


def from_store(scene: Scene, one: Asked, folder: Path) -> Path:
    """Train from stored shards with the window of the scene."""
    inputs = TrainingInputs(
        scene.model,
        scene.shards("train", *one.mix.corpora),
        [scene.folder / "corpora" / name / "corpus.json" for name in one.mix.corpora],
        scene.shards("eval", "chat-held", "wiki"),
        facts=[path for path in scene.facts("from-store") if path.parent.name in one.mix.corpora],
    )
    run_training(
        inputs,
        **vars(one),
        device=CPU,
        folder=folder / "sae",
        state=folder / "state",
        window_shards=HARVEST.window_shards,
    )
    return folder / "sae"


def members(every: list[Asked], folder: Path) -> list[GroupMember]:
    return [GroupMember(one, folder / str(n) / "sae", folder / str(n) / "state") for n, one in enumerate(every)]


def from_stream(scene: Scene, every: list[Asked], folder: Path, devices=(CPU, CPU), **changes) -> list[Path]:
    """Train the same as one group; `devices` are those of SAEs and model, `changes` settings of the harvest."""
    corpora = sorted({name for one in every for name in one.mix.corpora})
    inputs = GroupInputs(
        scene.model,
        scene.folder / "audit.json",
        [scene.folder / "tokens" / f"{name}.h5" for name in corpora],
        [path for path in scene.facts("from-stream") if path.parent.name in corpora],
        [scene.folder / "corpora" / name / "corpus.json" for name in corpora],
        scene.shards("eval", "chat-held", "wiki"),
    )
    group = members(every, folder)
    harvest = Harvest.model_validate(HARVEST.model_dump() | changes)
    train_group(inputs, group, harvest, devices[0], folder / "windows", devices[1])
    return [member.folder for member in group]


def card_apart_from_cost(folder: Path) -> dict:
    card = yaml.safe_load((folder / "run_card.yaml").read_text())
    return {key: value for key, value in card.items() if key != "cost"}
