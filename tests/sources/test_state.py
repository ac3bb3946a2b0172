"""A source that is replaced in place has another state, whatever its date says."""

import os

import pytest

from atlas.sources import state


@pytest.fixture(params=["content", "sizes and dates"])
def state_of(request, monkeypatch):
    """The state, asked anew each time, of a small and of a large source."""
    monkeypatch.setattr(state, "READ_BYTES", 1 << 20 if request.param == "content" else 3)

    def asked(path):
        state.state_of.cache_clear()
        found = state.state_of(str(path))
        assert found.startswith(request.param)
        return found

    return asked


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "model.safetensors").write_text("1234")
    (tmp_path / "deep/config.json").write_text("{}")
    return tmp_path


def dated(path, text, years):
    before = path.stat().st_mtime
    path.write_text(text)
    os.utime(path, (before + years * 3.2e7,) * 2)


@pytest.mark.parametrize("years", [-3, 0, 3])
@pytest.mark.parametrize("name", ["model.safetensors", "deep/config.json"])
def test_replaced_content_is_another_state_under_any_date(folder, state_of, name, years):
    before = state_of(folder)
    assert state_of(folder) == before
    dated(folder / name, "12" if years == 0 else "5" * len((folder / name).read_text()), years)
    assert state_of(folder) != before


def test_a_file_alone_is_a_source_too(folder, state_of):
    before = state_of(folder / "model.safetensors")
    dated(folder / "model.safetensors", "4321", -1)
    assert state_of(folder / "model.safetensors") != before


def test_names_count_and_hidden_files_do_not(folder, state_of):
    before = state_of(folder)
    (folder / ".cache").mkdir()
    (folder / ".cache/notes").write_text("x")
    (folder / ".DS_Store").write_text("x")
    assert state_of(folder) == before
    (folder / "deep/config.json").rename(folder / "config.json")
    assert state_of(folder) != before


def test_equal_content_of_another_date_is_the_same_state(folder):
    before = state.state_of(str(folder))
    os.utime(folder / "model.safetensors", (0, 0))
    state.state_of.cache_clear()
    assert state.state_of(str(folder)) == before


def test_what_is_not_there_has_no_state(tmp_path):
    assert state.state_of(str(tmp_path / "nothing")) is None


def test_a_large_source_is_not_read(tmp_path):
    """600 GB of weights: a call would otherwise read them all before it prints its plan."""
    with (tmp_path / "weights").open("wb") as file:
        file.truncate(600 << 30)
    assert state.state_of(str(tmp_path)).startswith("sizes and dates")
