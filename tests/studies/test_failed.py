"""The last lines of a run that failed: each error once, with its log, and none of an earlier run."""

import os

from atlas.studies.failed import failed_since

STAMP = "2026-01-02 03:04:05,678"


def log(folder, name: str, *lines: str, at: float = 100.0):
    path = folder / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    os.utime(path, (at, at))
    return path


def test_errors_of_this_run_are_listed_in_their_order(tmp_path):
    later = log(tmp_path, "a/late", f"{STAMP} INFO begun", f"{STAMP} ERROR ConfigError: k is 9; expected 8", at=120)
    first = log(tmp_path, "b", f"{STAMP} ERROR SourceError: no file", at=110)
    log(tmp_path, "sound", f"{STAMP} INFO done", at=130)
    log(tmp_path, "old", f"{STAMP} ERROR SourceError: long ago", at=90)
    assert failed_since(tmp_path, 100) == [
        f"{first}: SourceError: no file",
        f"{later}: ConfigError: k is 9; expected 8",
    ]


def test_an_unexpected_error_is_named_by_the_end_of_its_traceback(tmp_path):
    trace = ["Traceback (most recent call last):", '  File "x.py", line 1, in f', "KeyError: 'fvu'"]
    path = log(tmp_path, "bug", f"{STAMP} ERROR unexpected error", *trace)
    assert failed_since(tmp_path, 0) == [f"{path}: unexpected error: KeyError: 'fvu'"]


def test_logs_of_any_length_and_bytes_are_read_from_their_end(tmp_path):
    path = log(tmp_path, "long", *["x" * 1000] * 500, f"{STAMP} ERROR {'y' * 2000}")
    (line,) = failed_since(tmp_path, 0)
    assert line.startswith(f"{path}: yyy") and line.endswith(" …") and len(line) < 700
    (tmp_path / "long.log").write_bytes(b"\xff\xfe\n" * 10)
    assert failed_since(tmp_path, 0) == []
    assert failed_since(tmp_path / "none", 0) == []
