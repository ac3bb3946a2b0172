"""Keeps the results that pages show, with the machine they were made on, in docs/results (``make record``).

``python -m atlas.docs.record [NAME[=FILE] ...]`` takes FILE, or results/NAME.csv; by default every results/NAME.csv
that a page shows and that exists. docs/results/NAME.csv gets the columns that pages show, as text that is not changed;
NAME.json the machine, the versions and the commit.
"""

import argparse
import csv
import logging
import platform
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from atlas.devices import fast_matmul_dtype
from atlas.docs import pages
from atlas.docs.tables import DocsError, Row
from atlas.files import atomic_path, sha256_file, write_json
from atlas.runcard import read_run_card
from atlas.training.card import processor, versions

log = logging.getLogger(__name__)

# Flags of /proc/cpuinfo that choose other kernels, and their names.
_INSTRUCTIONS = {"avx2": "AVX2", "avx512f": "AVX512", "avx512_bf16": "AVX512-bf16", "amx_bf16": "AMX-bf16"}
_SAE = ("model", "hook", "mix", "recipe", "seed")


def record(name: str, columns: Sequence[str], source: Path, results: Path, target: Path, commit: str) -> None:
    """Keep `columns` of the file `source` as `target`/<name>.csv, and its machine beside it.

    Run cards of its SAEs are looked up in the folder `results`. Raises DocsError when a column is missing, or when a
    run card says that an SAE was trained on another machine.
    """
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if missing := [column for column in columns if not rows or column not in rows[0]]:
        raise DocsError(f"{source}: no column {', '.join(missing)}, which a page shows; correct the page's table")
    described = machine()
    products = products_of(rows, results, described["processor"])
    with atomic_path(target / f"{name}.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_json(
        target / f"{name}.json",
        {
            "made_from": source.name,
            "sha256": sha256_file(source),
            "machine": described,
            "products": products,
            "versions": versions(),
            "commit": commit,
        },
    )


def machine() -> dict[str, Any]:
    """This machine: what its results may depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    flags = next((set(line.split(":", 1)[1].split()) for line in text.splitlines() if line.startswith("flags")), set())
    return {
        "processor": processor(),
        "instructions": [name for flag, name in _INSTRUCTIONS.items() if flag in flags],
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def products_of(rows: Iterable[Row], results: Path, name: str) -> list[str]:
    """Number formats of the trainings' products by the run cards of the SAEs in `rows`; without cards, this machine's.

    Raises DocsError when a card names another processor than `name`, and no GPU: the record would be wrong.
    """
    found = set()
    for identity in dict.fromkeys(tuple(row.get(column, "") for column in _SAE) for row in rows):
        model, hook, mix, recipe, seed = identity
        card_path = results / "saes" / model / hook / mix / recipe / f"seed-{seed}" / "run_card.yaml"
        if not all(identity) or not card_path.exists():
            continue
        card = read_run_card(card_path)
        hardware = card["hardware"]
        if hardware["device"] == "cpu" and hardware["name"] != name:
            raise DocsError(
                f"{card_path}: trained on {hardware['name']!r}, but this machine is {name!r}; record results where "
                "they were made"
            )
        found.add(card["numerics"]["products"])
    return sorted(found) or [str(fast_matmul_dtype(torch.device("cpu"))).removeprefix("torch.")]


def commit_of_this_code() -> str:
    """The commit of this checkout. Raises DocsError when code or configuration differ from it."""
    changed = _git("status", "--porcelain", "--", "workflow", "config", "envs")
    if changed:
        raise DocsError(f"changed since the last commit: {', '.join(changed.split()[1::2])}; commit it, then record")
    return _git("rev-parse", "HEAD")


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=pages.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise DocsError(f"git {' '.join(words)}: {done.stderr.strip()}; record in a git checkout of the repository")
    return done.stdout.strip()


def shown() -> dict[str, list[str]]:
    """Files that pages show, and the columns of each."""
    columns: dict[str, dict[str, None]] = {}
    for page in pages.pages():
        for spec in pages.specs(page):
            columns.setdefault(spec.table, {}).update(dict.fromkeys(spec.columns()))
    return {name: list(found) for name, found in columns.items()}


def main() -> None:
    """Record the named files, or all that there are, and make the pages anew."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME[=FILE]", help="of a table, and its file of results")
    parser.add_argument("--results", type=Path, default=pages.ROOT / "results", help="folder of results")
    given = parser.parse_args()
    columns = shown()
    pairs = [each.split("=", 1) for each in given.names] or [[name] for name in columns]
    sources = {name: Path(*file) if file else given.results / f"{name}.csv" for name, *file in pairs}
    if unknown := sorted(set(sources) - set(columns)):
        raise SystemExit(f"no page shows {', '.join(unknown)}; pages show {', '.join(sorted(columns))}")
    if absent := {name: source for name, source in sources.items() if not source.exists()}:
        message = f"not there: {', '.join(map(str, absent.values()))}"
        if given.names:
            raise SystemExit(f"{message}; make them with snakemake first")
        log.warning("%s: their tables stay as they were", message)
    try:
        commit = commit_of_this_code()
        for name in sorted(set(sources) - set(absent)):
            record(name, columns[name], sources[name], given.results, pages.RESULTS, commit)
            log.info("recorded docs/results/%s.csv", name)
    except DocsError as error:
        raise SystemExit(str(error)) from error
    pages.main()


if __name__ == "__main__":
    main()
