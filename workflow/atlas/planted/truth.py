"""The truth of a planted model: directions, how often and how strongly features fire, and which depend on which."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from jaxtyping import Integer as Int

from atlas.config.data import ModelSpec
from atlas.config.planted import Frequency, PlantedSource
from atlas.errors import SourceError
from atlas.files import atomic_path, write_json
from atlas.models.load import hash_weights
from atlas.prepared import verified_identity
from atlas.tensors import open_tensors, write_tensors

TRUTH_FILE = "truth.safetensors"
LICENCE = "none: numbers drawn by this program"
_NO_PARENT = -1
_STREAM = 0  # of a seed: the truth itself; samples have numbers of their own
_REMEDY = "delete the folder of this file and run again; it will be made anew"


@dataclass(frozen=True)
class Truth:
    """Features, the most frequent first; all float64 but `directions`.

    `directions`: unit rows. `frequency`: the probability that a feature fires on a row. `parent`: the feature without
    which it never fires, −1 for none. `given_parent`: its probability where the parent fires (`frequency` without a
    parent). `mean`: the middle of its magnitude. `loadings`: of the factors that make features fire together, of no
    columns where they are independent; zero for a feature with a parent.
    """

    directions: Float[np.ndarray, "features d_model"]
    frequency: Float[np.ndarray, " features"]
    parent: Int[np.ndarray, " features"]
    given_parent: Float[np.ndarray, " features"]
    mean: Float[np.ndarray, " features"]
    loadings: Float[np.ndarray, "features factors"]

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.frequency)

    @property
    def l0(self) -> float:
        """Return how many features fire on a row, on average."""
        return float(self.frequency.sum())

    def families(self) -> list[tuple[int, Int[np.ndarray, " children"]]]:
        """Each parent with its children, parents before their own children's families."""
        parents = np.unique(self.parent[self.parent != _NO_PARENT])
        return [(int(parent), np.flatnonzero(self.parent == parent)) for parent in parents]


def make_truth(source: PlantedSource, d_model: int) -> Truth:
    """The truth of a configuration: the same for the same source and width.

    A child that would fire more often than its share of the parent's firings (one in `branches`) is made rarer; all
    other frequencies are the law's.
    """
    generator = np.random.Generator(np.random.PCG64([source.seed, _STREAM]))
    directions = _directions(source, d_model, generator)
    frequency = _frequencies(source.frequency, source.n_features, generator)
    parent = np.full(source.n_features, _NO_PARENT)
    given_parent = frequency.copy()
    if source.hierarchy is not None:
        roots, branches = source.hierarchy.roots, source.hierarchy.branches
        for child in range(roots, source.hierarchy.n_features):
            parent[child] = (child - roots) // branches
            most = frequency[parent[child]] / branches
            frequency[child] = min(frequency[child], most)
            given_parent[child] = frequency[child] / frequency[parent[child]]
    rank = np.linspace(0.0, 1.0, source.n_features)
    mean = source.magnitude.frequent + rank * (source.magnitude.rare - source.magnitude.frequent)
    return Truth(directions, frequency, parent, given_parent, mean, _loadings(source, parent, generator))


def _directions(source: PlantedSource, d_model: int, generator: np.random.Generator) -> np.ndarray:
    rows = torch.from_numpy(generator.standard_normal((source.n_features, d_model)))
    rows = torch.nn.functional.normalize(rows, dim=1)
    for _ in range(source.spread_steps):
        cosines = rows @ rows.T
        cosines.fill_diagonal_(0.0)
        # Descent of the sum of fourth powers, which the closest pairs dominate.
        push = cosines.pow(3) @ rows
        rows = torch.nn.functional.normalize(rows - 0.5 * push / push.norm(dim=1).max().clamp(min=1e-12), dim=1)
    return rows.float().numpy()


def _frequencies(law: Frequency, n_features: int, generator: np.random.Generator) -> np.ndarray:
    if law.lowest is None:  # the constant law
        return np.full(n_features, law.highest)
    if law.exponent is not None:  # zipf
        return np.maximum(law.highest * np.arange(1.0, n_features + 1) ** -law.exponent, law.lowest)
    drawn = np.exp(generator.uniform(np.log(law.lowest), np.log(law.highest), n_features))
    return np.sort(drawn)[::-1].copy()


def _loadings(source: PlantedSource, parent: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    if source.correlation is None:
        return np.zeros((source.n_features, 0))
    loadings = generator.standard_normal((source.n_features, source.correlation.rank))
    loadings *= np.sqrt(source.correlation.scale) / np.linalg.norm(loadings, axis=1, keepdims=True)
    loadings[parent != _NO_PARENT] = 0.0
    return loadings


def write_truth(name: str, model: ModelSpec, folder: Path) -> None:
    """Write a planted model to `folder`: its truth, and identity.json as of any prepared model."""
    assert isinstance(model.source, PlantedSource)  # the rule of planted models
    truth = make_truth(model.source, model.d_model)
    described = model.source.model_dump(mode="json")
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True, exist_ok=True)
        tensors = {field.name: torch.from_numpy(getattr(truth, field.name)) for field in fields(truth)}
        write_tensors(temporary / TRUTH_FILE, tensors, {"source": described})
        sha256 = hash_weights(temporary)
        identity = {
            "name": name,
            "source": described,
            "architecture": "planted",
            "objective": model.objective,
            "random_weights": None,
            "n_layers": model.n_layers,
            "d_model": model.d_model,
            "dtype": model.dtype,
            "weights_sha256": sha256,
            "tokenizer_sha256": "none: there is no text",
            "files_sha256": {},
            "licence": LICENCE,
            "versions": {"numpy": np.__version__, "torch": torch.__version__},
            "revision": f"planted sha256:{sha256}",
        }
        write_json(temporary / "identity.json", identity)


def read_truth(folder: Path) -> tuple[Truth, dict[str, Any]]:
    """The truth in a planted model's folder, and its identity.

    Raises SourceError when the folder is that of a language model, or what is in it has changed.
    """
    identity = verified_identity(folder)
    if identity["objective"] != "none":
        raise SourceError(f"{folder}: is a model with objective {identity['objective']!r}; expected a planted one")
    if (found := hash_weights(Path(folder))) != identity["weights_sha256"]:
        raise SourceError(
            f"{folder}/{TRUTH_FILE}: SHA-256 {found}, but identity.json says {identity['weights_sha256']}: truncated "
            f"or altered; {_REMEDY}"
        )
    with open_tensors(Path(folder) / TRUTH_FILE, _REMEDY) as file:
        return Truth(**{field.name: file.get_tensor(field.name).numpy() for field in fields(Truth)}), identity
