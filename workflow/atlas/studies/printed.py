"""The table of a study for readers: results/<study>.csv in Markdown and in LaTeX, the published rows beside ours."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.evaluation.outcome import COPIES
from atlas.files import atomic_path
from atlas.tables import read_csv
from atlas.twins.learnt import with_learnt
from atlas.usefulness.scale import with_useful

# Always shown, and shown where they tell rows of a study apart.
_NAMES = {"layer": "layer", "n_latents": "latents", "k": "k", "seed": "seed", "corpus": "corpus"}
_WHERE_DIFFERING = {
    "model": "model",
    "random_weights": "random weights",
    "site": "site",
    "target_hook": "target",
    "mix": "mix",
    "recipe": "recipe",
    "shift": "shift",
}
UNDEFINED = "–"
# Longer ones do not fit on a page.
_LONGEST_TABULAR = 45
# Published values are of these, hence the same in each seed and corpus.
_PUBLISHED, _OF_PUBLISHED = "published ", ("model", "layer", "latents", "k")
_OUTCOME = "outcome"
_USEFUL = ["useful", "untested"]
_SAE_AND_CORPUS = ["model", "hook", "target_hook", "mix", "recipe", "seed", "corpus"]
_OVER_TWIN = ", over the best twin"
# Points that a character of LaTeX's scriptsize takes.
_POINTS = 3.9
_BREAK = re.compile(r"(?<=[ -])")
_MARKUP = re.compile(r"[\\`*_|<>]")


@dataclass(frozen=True)
class Column:
    """A printed column: its heading, the column of the table that decides whether it is defined, and its cells."""

    heading: str
    source: str
    cell: Callable[[dict[str, Any]], str]


def _number(source: str, digits: int, factor: float = 1) -> Callable[[dict[str, Any]], str]:
    """A number, with its interval where it has one and these digits show it: L0 of a TopK is K."""

    def cell(row: dict[str, Any]) -> str:
        ends: list[Any] = [row.get(f"{source}_interval_{end}") for end in ("low", "high")]
        value, *interval = (f"{factor * number:.{digits}f}" for number in (row[source], *ends) if pd.notna(number))
        return value if {value} >= set(interval) else f"{value} [{', '.join(interval)}]"

    return cell


def _dead(row: dict[str, Any]) -> str:
    """Never without the tokens on which it was silent, nor taken for dead before there were enough of them."""
    untested = "untested, " if row["atlas_dead_status"] == "untested" else ""
    return f"{row['atlas_dead_pct']:.1f} ({untested}{row['atlas_dead_tokens']:,} tokens)"


def _redundancy(row: dict[str, Any]) -> str:
    random = row[f"redundancy_{COPIES}_null_mean"]
    return f"{100 * row[f'redundancy_{COPIES}_value']:.1f} (random {100 * random:.1f})"


def _outcome(row: dict[str, Any]) -> str:
    said = with_learnt(row["outcome"], row["learnt"])
    if pd.isna(row.get("useful")):
        return said
    return with_useful(said, row["useful"], row["untested"].split(", ") if row["untested"] else [])


def _over_twin(measure: str) -> Callable[[dict[str, Any]], str]:
    """By how much the SAE is better than its best twin, and the word for it."""

    def cell(row: dict[str, Any]) -> str:
        difference = _number(f"over_twin_{measure}", 3)(row)
        return f"{difference}: {row[f'learnt_{measure}']} ({row[f'best_twin_{measure}']})"

    return cell


def _text(source: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: str(row[source])


def _recovered(ablation: str) -> Callable[[dict[str, Any]], str]:
    return _number(f"atlas_loss_recovered_{ablation}", 1, 100)


OURS = (
    Column("L0", "atlas_l0", _number("atlas_l0", 1)),
    Column("explained variance", "atlas_explained_variance", _number("atlas_explained_variance", 3)),
    Column(
        "without massive activations",
        "atlas_explained_variance_regular",
        _number("atlas_explained_variance_regular", 3),
    ),
    Column("recovered, zero (%)", "atlas_loss_recovered_zero", _recovered("zero")),
    Column("recovered, mean (%)", "atlas_loss_recovered_mean_regular", _recovered("mean_regular")),
    Column("dead (%)", "atlas_dead_pct", _dead),
    Column("copies (%)", f"redundancy_{COPIES}_value", _redundancy),
    Column(_OUTCOME, "outcome", _outcome),
)
# Of studies with twins: by how much an SAE is better than the best of them.
TWINS = tuple(
    Column(f"{heading}{_OVER_TWIN}", f"over_twin_{measure}", _over_twin(measure))
    for heading, measure in (
        ("explained variance without massive activations", "explained_variance_regular"),
        ("share recovered, mean", "loss_recovered_mean_regular"),
        ("KL", "kl_regular"),
    )
)
PUBLISHED = (
    Column("published L0", "published_l0", _number("published_l0", 1)),
    Column("published loss recovered (%)", "published_loss_recovered_pct", _number("published_loss_recovered_pct", 1)),
    Column("published dead (%)", "published_dead_pct", _number("published_dead_pct", 1)),
    Column("published redundancy", "published_absorption", _number("published_absorption", 3)),
    Column("published outcome", "published_outcome", _text("published_outcome")),
)


def print_study(table: Path, usefulness: Path | None, markdown: Path, latex: Path) -> None:
    """Write results/<study>.csv as a Markdown table and as a LaTeX tabular with booktabs' rules.

    With results/<study>_usefulness.csv the word for usefulness stands beside the outcome it belongs to.
    Intervals are 95 % over documents; what is not defined is a dash, and the table's `reasons` say why. The LaTeX is
    for `\\input` inside a table environment; one of more than 45 rows is a longtable, which stands alone.
    """
    rows = read_csv(table)
    cells = printed(rows if usefulness is None else with_usefulness(rows, read_csv(usefulness)))
    with atomic_path(markdown) as temporary:
        temporary.write_text(as_markdown(cells), encoding="utf-8")
    with atomic_path(latex) as temporary:
        temporary.write_text(as_latex(cells), encoding="utf-8")


def with_usefulness(rows: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Rows with the columns `useful` and `untested` of the row of `judged` for the same SAE, at home on that corpus."""
    found = dict(zip(_keys(judged), judged[_USEFUL].to_dict("records"), strict=True))
    at_home = rows["shift"].isna()
    beside = [found.get(key, {}) if home else {} for key, home in zip(_keys(rows), at_home, strict=True)]
    added = {name: [own.get(name) for own in beside] for name in _USEFUL}
    added["untested"] = ["" if pd.isna(missing) else missing for missing in added["untested"]]
    return rows.assign(**added)


def _keys(rows: pd.DataFrame) -> list[tuple]:
    """Return what names an SAE and a corpus; seeds are whole numbers, also where published SAEs have none."""
    cells = rows[_SAE_AND_CORPUS].astype(object).where(rows[_SAE_AND_CORPUS].notna(), None)
    return [tuple(int(value) if isinstance(value, float) else value for value in own) for own in cells.to_numpy()]


def printed(rows: pd.DataFrame) -> pd.DataFrame:
    """Cells as text, one row per SAE and corpus; published columns only where something was published."""
    differing = {name: title for name, title in _WHERE_DIFFERING.items() if rows[name].nunique(dropna=False) > 1}
    names = {name: title for name, title in (differing | _NAMES).items() if rows[name].notna().any()}
    columns = [Column(title, name, _text(name)) for name, title in names.items()] + list(OURS)
    columns += [column for column in TWINS if column.source in rows]
    columns += [column for column in PUBLISHED if rows[column.source].notna().any()]
    # An empty cell makes whole numbers of a column floats.
    rows = rows.convert_dtypes()
    records = rows.astype(object).to_dict("records")
    return pd.DataFrame(
        {
            column.heading: [UNDEFINED if pd.isna(row[column.source]) else column.cell(row) for row in records]
            for column in columns
        }
    )


def as_markdown(cells: pd.DataFrame) -> str:
    """A pipe table; names that hold Markdown's own characters are escaped."""
    return cells.map(escaped).to_markdown(index=False, tablefmt="pipe", disable_numparse=True) + "\n"


def escaped(text: str) -> str:
    """Text whose characters Markdown would read as markup are escaped."""
    return _MARKUP.sub(r"\\\g<0>", text)


def as_latex(cells: pd.DataFrame) -> str:
    """Tabulars with booktabs' rules for the width of a page of two columns; LaTeX's own characters are escaped.

    Differences over twins stand in a tabular of their own below, and published values in another, once for each place
    that they are of: beside ours they would be wider than a page.
    """
    published = [heading for heading in cells if heading.startswith(_PUBLISHED)]
    twins = [heading for heading in cells if heading.endswith(_OVER_TWIN)]
    ours = cells.drop(columns=published + twins)
    long = len(ours) > _LONGEST_TABULAR
    parts = [_tabular(ours, long)]
    if twins:
        names = [name for name in ours if name in {*_NAMES.values(), *_WHERE_DIFFERING.values()}]
        beside = cells[names + twins].rename(columns=lambda name: name.removesuffix(_OVER_TWIN))
        parts.append("% over the best twin\n" + _tabular(beside, long))
    if published:
        names = [name for name in ours if name in _OF_PUBLISHED]
        theirs = cells[names + published].drop_duplicates()
        theirs = theirs[(theirs[published] != UNDEFINED).any(axis=1)]
        theirs.columns = [name.removeprefix(_PUBLISHED) for name in theirs]
        parts.append("% published\n" + _tabular(theirs, long=False))
    packages = "array, booktabs and longtable" if long else "array and booktabs"
    # A longtable takes no place among words, so there is nothing to part it from.
    between = "\n" if long else "\n\\par\\medskip\n"
    body = between.join(part.rstrip("\n") for part in parts)
    return f"% needs {packages}\n{{\\scriptsize\\setlength{{\\tabcolsep}}{{1pt}}%\n{body}\n}}\n"


def _tabular(cells: pd.DataFrame, long: bool) -> str:
    """Each column as wide as its longest cell in two lines, broken at spaces and hyphens; outcomes take more lines."""
    widths = [max(map(_longest_word if name == _OUTCOME else _halved, cells[name]), default=1) for name in cells]
    widths = [max(width, *map(len, name.split())) for width, name in zip(widths, cells, strict=True)]
    formats = [rf">{{\raggedright\arraybackslash}}p{{{_POINTS * width:.0f}pt}}" for width in widths]
    return cells.to_latex(index=False, escape=True, longtable=long, column_format="".join(formats))


def _longest_word(text: str) -> int:
    """Characters of the longest part between breaks."""
    return max(len(part.rstrip()) for part in _BREAK.split(text))


def _halved(text: str) -> int:
    """Characters of the longer of two lines, where they are the shortest."""
    parts = _BREAK.split(text)
    lines = (("".join(parts[:place]), "".join(parts[place:])) for place in range(len(parts)))
    return min(max(len(line.rstrip()) for line in pair) for pair in lines)
