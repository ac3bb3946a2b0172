"""Files that readers save from a sheet: one vote for every item, or an error that says what is missing."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from atlas.blind_reading.items import Sheet
from atlas.errors import EvaluationError
from atlas.files import read_plain_json

# From "means nothing to me" to "clear": the numbers are ranks.
VOTES = ("none", "vague", "clear")


def read_votes(paths: Sequence[Path], sheet: Sheet) -> pd.DataFrame:
    """Read the votes of all readers: a column per reader, a row per item (number from 1), values 0, 1, 2 of VOTES.

    Raises EvaluationError that names the file when it is of another sheet, lacks a vote, or has a reader twice.
    """
    columns: dict[str, pd.Series] = {}
    for path in paths:
        reader, votes = _read(path, sheet)
        if reader in columns:
            raise EvaluationError(f"{path}: reader {reader!r} is in two files; name one file for each reader")
        columns[reader] = votes
    return pd.DataFrame(columns)


def _read(path: Path, sheet: Sheet) -> tuple[str, pd.Series]:
    found = read_plain_json(path)
    if not isinstance(found, dict) or not {"study", "sheet", "reader", "votes"} <= set(found):
        raise EvaluationError(f"{path}: expected keys study, sheet, reader, votes; save them from the sheet's page")
    for name, expected in (("study", sheet.study), ("sheet", sheet.sheet_id)):
        if found[name] != expected:
            raise EvaluationError(
                f"{path}: {name} is {found[name]!r}, expected {expected!r}: votes are of another sheet; read this one"
            )
    reader = found["reader"]
    if not isinstance(reader, str) or not reader.strip():
        raise EvaluationError(f"{path}: reader is {reader!r}, expected a name; write it on the sheet and save again")
    given = found["votes"]
    if not isinstance(given, dict):
        raise EvaluationError(f"{path}: votes is {given!r:.80}, expected a vote by number; save the votes again")
    votes, missing = {}, []
    for item in sheet.items:
        entry = given.get(str(item.number))
        vote = entry.get("vote") if isinstance(entry, dict) else None
        if vote is None:
            missing.append(item.number)
        elif vote not in VOTES:
            raise EvaluationError(f"{path}: item {item.number} has vote {vote!r}, expected one of {', '.join(VOTES)}")
        else:
            votes[item.number] = VOTES.index(vote)
    if missing:
        raise EvaluationError(
            f"{path}: {len(missing)} of {len(sheet.items)} items have no vote, first {missing[:5]}; mark them and save"
        )
    if unknown := sorted(set(given) - {str(item.number) for item in sheet.items}):
        raise EvaluationError(f"{path}: votes on items {unknown[:5]}, which the sheet does not have")
    return reader.strip(), pd.Series(votes)
