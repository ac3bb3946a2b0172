"""Run cards of a study for people: one page with what differs between the runs, what they cost, and every card."""

import html
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.card_fields import RESULTS, differences, flat, sections
from atlas.files import write_text
from atlas.runcard import is_published, public_card, read_run_card

_AUDIT = "reading_audit"
# What a section is about, where its name could be taken for something else.
_TITLES = {"outcomes": "outcomes of training"}
_STYLE = (
    "body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1a1a1a}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{border:1px solid #bbb;padding:.2rem .5rem;"
    "text-align:left;vertical-align:top;overflow-wrap:anywhere}th{background:#f2f2f2}summary{cursor:pointer;font-weight:600}"
)


def write_cards(study: str, cards: Mapping[str, Path], benchmarks: Path, full: Path, public: Path) -> None:
    """Write both pages of a study from the run cards of its SAEs (SAE id → run_card.yaml).

    The full page begins with where and when it was made, the differences between the runs and the cost by stage (of
    Snakemake's benchmark files, as far as `benchmarks` has them). The public one has public cards and nothing else.
    """
    read = {sae_id: read_run_card(path) for sae_id, path in cards.items()}
    settings = {sae_id: _settings(card) for sae_id, card in read.items()}
    parts = [
        _heading(f"Runs of {study}"),
        _table(pd.DataFrame(_facts(read), columns=["this run", ""])),
        "<h2>What differs between the runs</h2>",
        _table(differing_settings(settings)),
        "<h2>Cost by stage</h2><p>Of all jobs that had ended in this folder when this page was written.</p>",
        _table(time_by_rule(benchmarks)),
        "<h2>Run cards</h2>",
        *(_card(sae_id, card) for sae_id, card in read.items()),
    ]
    write_text(full, _page(f"Runs of {study}", parts))
    shown = [_card(sae_id, public_card(card)) for sae_id, card in read.items()]
    write_text(public, _page(f"Public run cards of {study}", [_heading(f"Public run cards of {study}"), *shown]))


def write_difference(saes: Sequence[str], cards: Sequence[Path], target: Path) -> None:
    """Write a page with every field, settings and results, in which the run cards of two SAEs (ids `saes`) differ."""
    (one, other), (first, second) = saes, cards
    found = differences(read_run_card(first), read_run_card(second))
    names = [name for name, *_ in found]
    table = pd.DataFrame({"field": names, one: [a for _, a, _ in found], other: [b for *_, b in found]})
    lead = f"<p>{len(found)} fields differ; everything else on the two cards is the same.</p>"
    title = "What differs between two runs"
    write_text(target, _page(title, [_heading(title), lead, _table(table)]))


def differing_settings(settings: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """One row per run and one column per setting that is not the same in all; empty where a card lacks it."""
    names = list(dict.fromkeys(name for each in settings.values() for name in each))
    differing = [name for name in names if len({each.get(name) for each in settings.values()}) > 1]
    columns = {name: [each.get(name, "") for each in settings.values()] for name in differing}
    return pd.DataFrame({"run": list(settings)} | columns)


def time_by_rule(folder: Path) -> pd.DataFrame:
    """Jobs, wall and processor seconds and peak memory of each rule, the longest first."""
    files = [path for path in sorted(folder.rglob("*.tsv")) if path.parent != folder]
    if not files:
        return pd.DataFrame(columns=["rule", "jobs", "seconds", "processor seconds", "peak MiB"])
    rows = [pd.read_csv(path, sep="\t").assign(rule=path.relative_to(folder).parts[0]) for path in files]
    columns = {
        "jobs": ("s", "size"),
        "seconds": ("s", "sum"),
        "processor seconds": ("cpu_time", "sum"),
        "peak MiB": ("max_rss", "max"),
    }
    table = pd.concat(rows).groupby("rule").agg(**columns).sort_values("seconds", ascending=False)
    return table.round().astype(int, errors="ignore").reset_index()


def _settings(card: Mapping[str, Any]) -> dict[str, str]:
    return dict(flat({section: value for section, value in card.items() if section not in RESULTS}))


def _facts(cards: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return where this page was made, and what all its runs rest on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB"
    trained = [card for card in cards.values() if not is_published(card)]
    devices = sorted({f"{card['hardware']['device']} ({card['hardware']['name']})" for card in trained})
    published = [card["names"]["recipe"] for card in cards.values() if is_published(card)]
    sources = {card["model"]["name"]: card["model"]["weights_sha256"] for card in cards.values()}
    texts_of = [card["stated_corpora"] if is_published(card) else card["corpora"] for card in cards.values()]
    corpora = {name: corpus["fingerprint"] for texts in texts_of for name, corpus in texts.items()}
    texts = dict(pair for name, fingerprint in corpora.items() for pair in flat({name: fingerprint}))
    return [
        ("commit", _commit()),
        ("this machine", machine),
        ("trained on", "; ".join(devices) or "none was trained here"),
        ("seeds", ", ".join(sorted({str(card["seed"]) for card in trained})) or "none was trained here"),
        *([("published, trained elsewhere", ", ".join(published))] if published else []),
        *((f"weights of {name}, SHA-256", digest) for name, digest in sources.items()),
        *((f"text of {name}, fingerprint", value) for name, value in texts.items()),
    ]


def _commit() -> str:
    """Of the workflow, which may not lie where it is called."""
    call = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown: git cannot be asked ({error})"
    return done.stdout.strip() if done.returncode == 0 else f"unknown: {done.stderr.strip()}"


def _card(sae_id: str, card: Mapping[str, Any]) -> str:
    """One card; verdicts are not on it, for it says how an SAE was made, before any is evaluated."""
    rest = {name: value for name, value in card.items() if name != _AUDIT}
    tables = [
        (f"<h3>{html.escape(_TITLES.get(name, name))}</h3>" if name else "")
        + _table(pd.DataFrame([(_TITLES.get(key, key), value) for key, value in fields], columns=["", "value"]))
        for name, fields in sections(rest)
    ]
    if isinstance(card.get(_AUDIT), Mapping):
        tables.append(_reading_audit(card[_AUDIT]))
    return f"<details><summary>{html.escape(sae_id)}</summary>{''.join(tables)}</details>"


def _reading_audit(audit: Mapping[str, Any]) -> str:
    """The audit of a published SAE's reading: what each reading of its files leaves unexplained."""
    columns = {
        "reading of the files": lambda each: each["reading"],
        "variance unexplained": lambda each: _short(each["fvu"]),
        "more than the stated reading [interval]": lambda each: _more(each["less"]),
        "active latents a row": lambda each: _short(each["l0"]),
        "slope of rows on reconstructions": lambda each: _short(each["gain"]),
    }
    rows = pd.DataFrame(
        [[cell(each) for cell in columns.values()] for each in [audit["stated"], *audit["others"]]],
        columns=list(columns),
    )
    better = next((audit[key]["reading"] for key in ("better", "nearest") if audit.get(key)), None)
    found = "No other reading explains the rows better." if better is None else f"Speaks for another reading: {better}."
    lead = (
        f"On {audit['n_rows']:,} stored rows of {audit['n_documents']:,} documents at {audit['hook']}. {found} "
        "A sound reading has a slope near 1."
    )
    return f"<h3>audit of the reading</h3><p>{html.escape(lead)}</p>{_table(rows)}"


def _more(less: Sequence[float] | None) -> str:
    """Say how much more a reading leaves unexplained; the card has the stated less this one, with its interval."""
    return "" if less is None else f"{-less[0]:+.3f} [{-less[2]:+.3f}, {-less[1]:+.3f}]"


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _heading(text: str) -> str:
    return f"<h1>{html.escape(text)}</h1>"


def _table(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "<p>Nothing.</p>"
    with pd.option_context("display.max_colwidth", None):
        return rows.fillna("").to_html(index=False, escape=True, border=0)


def _page(title: str, parts: Sequence[str]) -> str:
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
