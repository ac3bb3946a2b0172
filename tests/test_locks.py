"""Locks on files: who has one, who waits, and files that are no lock any more."""

import os

import pytest

from atlas.locks import lock_if_free, read_holder, release, wait_for_lock, write_holder


def test_one_holder_at_a_time_who_can_say_who_it_is(tmp_path):
    path = tmp_path / "a.lock"
    path.write_text("who was killed before, with a longer text")
    descriptor = lock_if_free(path)
    assert read_holder(path).startswith("who was killed")
    write_holder(descriptor, "process 1\n")
    with pytest.raises(BlockingIOError):
        lock_if_free(path)
    assert read_holder(path) == "process 1"
    release(path, descriptor)
    assert not path.exists() and read_holder(path) == ""
    os.close(lock_if_free(path))


def test_waiting_is_said_once_and_ends_with_patience(tmp_path):
    path, said = tmp_path / "a.lock", []
    descriptor = lock_if_free(path)
    with pytest.raises(BlockingIOError):
        wait_for_lock(path, 0.001, 0.02, lambda: said.append(path))
    assert said == [path]
    free = wait_for_lock(path, 0.001, waiting=lambda: release(path, descriptor))
    assert path.exists()
    os.close(free)


def test_a_lock_on_a_removed_file_is_none(tmp_path, monkeypatch):
    """The holder removes its file after another process opened it: the next one gets a file of its own."""
    path, opened = tmp_path / "a.lock", []

    def open_and_lose(name, *arguments):
        opened.append(os_open(name, *arguments))
        if len(opened) == 1:
            path.unlink()
        return opened[-1]

    os_open = os.open
    monkeypatch.setattr(os, "open", open_and_lose)
    descriptor = lock_if_free(path)
    assert len(opened) == 2
    assert os.path.samestat(path.stat(), os.fstat(descriptor))
    os.close(descriptor)


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path):
    (tmp_path / "a.lock").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=r"a\.lock"):
        lock_if_free(tmp_path / "a.lock")
    assert not (tmp_path / "target").exists()
