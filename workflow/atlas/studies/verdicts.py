"""Verdicts of a study for readers: of each SAE what it is called, why, what is not known, and what the words mean."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.evaluation.outcome import COPIES
from atlas.files import write_text
from atlas.sae_ids import PUBLISHED
from atlas.studies.printed import escaped
from atlas.studies.rows import filled
from atlas.tables import read_csv

NOTHING = "–"
ROLES = {"in_sample": "in-sample", "proxy": "proxy", "oos": "out-of-sample"}
MEANINGS = {
    "good": "no rule fired: it reconstructs, and what was tested of its health is in order. Whether a reader can do "
    "anything with its latents is another question: section 20 of docs/metrics.md.",
    "under-capacity": "no sign of sickness, but it reconstructs too little. This is no praise: random dictionaries, "
    "and SAEs of models that have learnt nothing, are called so too. Compare it with the random dictionary.",
    "deceptively-good": "its reconstruction is good, and its dictionary is not.",
    "unhealthy": "too many latents are dead or copies.",
    "noisy": "too many latents fire on more than a tenth of the tokens.",
    "duplicated": "many latents are copies of others.",
    "dead": "too many latents never fire.",
    "failed": "it does not reconstruct, or is not as sparse as it says. Look for a fault before anything else.",
    "unknown": "too little is known for a verdict.",
}
# Rules of a verdict in words (docs/metrics.md, section 7); limits are keys of `evaluation.taxonomy`.
RULES = {
    "finite": "reconstruction is not a finite number",
    "failed_below": "explained variance {value}, failed below {limit}",
    "sparsity_constraint": "{value} active latents a token, stated are {limit}",
    "dead_above": "share of dead latents {value}, limit {limit}",
    "duplicated_share_above": "share of copies {value}, limit {limit}",
    "dense_above": "share of dense latents {value}, limit {limit}",
    "deceptive_reconstruction": "explained variance {value} looks good (from {limit})",
    "deceptive_dead_above": "share of dead latents {value}, limit {limit}",
    "unhealthy_dead_above": "share of dead latents {value}, limit {limit}",
    "unhealthy_share_above": "share of copies {value}, limit {limit}",
    "weak_below": "explained variance {value}, weak below {limit}",
    "weak_recovered_below": "share of the loss recovered {value}, weak below {limit}",
}
UNKNOWN = {
    "reconstruction": "explained variance",
    "recovered": "share of the loss recovered",
    "dead": "dead latents",
    "dense": "dense latents",
    "redundancy": "copies",
    "sparsity_constraint": "how sparse it is to be",
}
_RULE = re.compile(r"^(\w+): (.*) \(limit (.*)\)$")
_LEARNT = {
    "untested": "it has no trained twin to be better than",
    "yes": "it explains more than its best twin, a dictionary that is half random",
    "no": "a dictionary that is half random explains as much or more",
    "unresolved": "whether it explains more than a dictionary that is half random is not resolved",
}


def write_verdicts(study: str, table: Path, dead_min_tokens: int, page: Path) -> None:
    """Write results/verdicts/<study>.md from results/<study>.csv: a section for each SAE, corpora side by side."""
    rows = filled(read_csv(table))
    parts = [f"# Verdicts of {study}", _lead(rows)]
    names = ["model", "hook", "target_hook", "mix", "recipe", "seed"]
    for key, own in rows.groupby(names, sort=False, dropna=False):
        parts += [_heading(dict(zip(names, key, strict=True)), own), _table(own), *_untested(own, dead_min_tokens)]
    parts += ["## The words", _meanings(rows), _further(study)]
    write_text(page, "\n\n".join(parts) + "\n")


def _lead(rows: pd.DataFrame) -> str:
    counts = ", ".join(f"{word} {count}" for word, count in rows.outcome.value_counts().items())
    return (
        f"One verdict for each SAE and corpus: {counts}. Intervals are 95 % over documents. All other columns: "
        "docs/metrics.md."
    )


def _heading(names: Mapping[str, Any], own: pd.DataFrame) -> str:
    hook = names["hook"] if pd.isna(names["target_hook"]) else f"{names['hook']} to {names['target_hook']}"
    made = PUBLISHED if names["mix"] == PUBLISHED else f"{names['mix']}, seed {names['seed']}"
    first = own.iloc[0]
    k = "" if pd.isna(first.k) else f", k = {first.k:g}"
    size = f"{first.architecture}, {first.n_latents:,} latents{k}"
    return f"## {escaped(str(names['recipe']))} ({escaped(made)}) on {escaped(names['model'])} {hook}\n\n{size}."


def _table(own: pd.DataFrame) -> str:
    records = own.to_dict("records")
    heads = [
        f"{row['corpus']} ({ROLES.get(row['role'], row['role'])})"
        + ("" if pd.isna(row["shift"]) else f", under {row['shift']}")
        for row in records
    ]
    lines: dict[str, Callable[[dict[str, Any]], str]] = {
        "**verdict**": lambda row: f"**{row['outcome']}**",
        "because": lambda row: _because(row["outcome_because"]),
        "not known": lambda row: _unknown(row["outcome_unknown"]),
        "learnt": lambda row: f"{row['learnt']}: {_LEARNT.get(row['learnt'], '')}",
        "by the guide's protocol": lambda row: _word(row["guide_outcome"]),
        "a random dictionary is called": lambda row: _word(row["random_outcome"]),
        "explained variance, massive activations left out": lambda row: _number(
            row, "atlas_explained_variance_regular"
        ),
        "the same of a random dictionary": lambda row: _number(row, "random_explained_variance_regular"),
        "share of the loss recovered over the mean row": lambda row: _number(row, "atlas_loss_recovered_mean_regular"),
        "loss above the clean model's": lambda row: _number(row, "atlas_delta_loss_regular"),
        "active latents a token": lambda row: _number(row, "atlas_l0", 1),
        "silent latents": lambda row: f"{row['atlas_dead_pct']:.1f} % on {row['atlas_dead_tokens']:,} tokens",
        "latents on more than a tenth of the tokens": lambda row: f"{row['atlas_dense_pct']:.1f} %",
        "copies; in a random dictionary": lambda row: (
            f"{100 * row[f'redundancy_{COPIES}_value']:.1f} %; {100 * row[f'redundancy_{COPIES}_null_mean']:.1f} %"
        ),
    }
    body = [[name, *(cell(row) for row in records)] for name, cell in lines.items()]
    table = [["", *map(escaped, heads)], ["---"] * (len(heads) + 1), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def _because(text: Any) -> str:
    """Rules that fired, as the table has them (`rule: value (limit x)`), in words."""
    if pd.isna(text) or not text:
        return "no rule fired"
    found = []
    for part in str(text).split("; "):
        rule = _RULE.match(part)
        said = RULES.get(rule[1]) if rule else None
        found.append(part if rule is None or said is None else said.format(value=rule[2], limit=rule[3]))
    return "; ".join(found)


def _unknown(text: Any) -> str:
    if pd.isna(text) or not text:
        return NOTHING
    return ", ".join(UNKNOWN.get(name, name) for name in str(text).split("; "))


def _untested(own: pd.DataFrame, dead_min_tokens: int) -> list[str]:
    """Tell how to count dead latents, where the table has no count."""
    if not any("dead" in str(names).split("; ") for names in own.outcome_unknown):
        return []
    return [
        f"A latent is called dead from {dead_min_tokens:,} tokens on (`evaluation.dead_min_tokens`): raise "
        "`eval_tokens` of the model's harvest, or lower the limit."
    ]


def _word(value: Any) -> str:
    return NOTHING if pd.isna(value) else str(value)


def _number(row: Mapping[str, Any], name: str, digits: int = 3) -> str:
    if pd.isna(row.get(name)):
        return NOTHING
    ends = [row.get(f"{name}_interval_{end}") for end in ("low", "high")]
    known = all(end is not None and pd.notna(end) for end in ends)
    shown = f" [{', '.join(f'{end:.{digits}f}' for end in ends)}]" if known and ends[0] != ends[1] else ""
    return f"{row[name]:.{digits}f}{shown}"


def _meanings(rows: pd.DataFrame) -> str:
    words = dict.fromkeys([*rows.outcome, *rows.random_outcome.dropna()])
    return "\n".join(f"- *{word}*: {MEANINGS[word]}" for word in words if word in MEANINGS)


def _further(study: str) -> str:
    return (
        f"Rules and limits: docs/metrics.md, section 7. What latents fire on: `snakemake --cores 2 "
        f"results/{study}_health.csv`; what they could mean: `results/{study}_autointerp.csv`; pages to read: name the "
        "study in `site.studies` and ask for `results/atlas/index.html`."
    )
