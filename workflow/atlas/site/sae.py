"""Content of the page of one SAE, and its line in the index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from atlas.autointerp.outcome import CLOSE_COPY
from atlas.autointerp.outcome import OUTCOMES as LATENT_OUTCOMES
from atlas.card_fields import sections
from atlas.config.study import Taxonomy
from atlas.evaluation.sparsity import DENSE_RATE
from atlas.files import read_json
from atlas.runcard import public_card, read_run_card
from atlas.sae_files import read_of_sae
from atlas.site.charts import constellation, lines, shares
from atlas.site.dials import BAD, LOOK, Dial, dials
from atlas.site.latent import Links
from atlas.site.numbers import known, percent, short
from atlas.site.tables import Tables
from atlas.site.useful import row_of, scales_of, word_of
from atlas.tables import read_parquet
from atlas.twins.learnt import UNTESTED

# Latents drawn on the map of a dictionary; of a larger one as many by chance.
MAP_LATENTS = 3000
RULES = {
    "failed_below": "explains less than {limit} of the variance ({value})",
    "finite": "a value is not finite ({value})",
    "sparsity_constraint": "uses {value} latents per token where k is {limit}",
    "dead_above": "{value} of its latents are dead (limit {limit})",
    "duplicated_above": "its redundancy is {value} (limit {limit})",
    "duplicated_share_above": "{value} of its latents are copies (limit {limit})",
    "dense_above": "{value} of its latents fire on more than 10 % of tokens (limit {limit})",
    "deceptive_reconstruction": "it explains {value} of the variance, which alone looks good",
    "deceptive_dead_above": "but {value} of its latents are dead (limit {limit})",
    "deceptive_absorption_above": "its redundancy is {value} (limit {limit})",
    "unhealthy_dead_above": "{value} of its latents are dead (limit {limit})",
    "unhealthy_share_above": "{value} of its latents are copies (limit {limit})",
    "weak_recovered_below": "a healthy dictionary that recovers {value} of the loss (limit {limit})",
    "weak_below": "a healthy dictionary that explains {value} of the variance (limit {limit})",
}


@dataclass(frozen=True)
class SaePageFiles:
    """metrics.json, latents.json, stability.json, run card; training curves of an SAE trained here, or None;
    autointerp.json, twins.json and a study's table of usefulness, or None."""

    metrics: Path
    latents: Path
    stability: Path
    card: Path
    curves: Path | None
    labels: Path | None = None
    twins: Path | None = None
    usefulness: Path | None = None


@dataclass(frozen=True, eq=False)
class SaeFacts:
    """Results of one SAE as they were written; `labels` is autointerp.json, `twins` twins.json, None without them.

    `usefulness` is its row of a study's table, None where the study does not ask for one.
    """

    metrics: dict[str, Any]
    latents: dict[str, Any]
    stability: dict[str, Any]
    card: dict[str, Any]
    curves: pd.DataFrame | None
    labels: dict[str, Any] | None
    twins: dict[str, Any] | None
    usefulness: dict[str, Any] | None

    @classmethod
    def read(cls, files: SaePageFiles, sae_id: str) -> "SaeFacts":
        """Raises EvaluationError when a file is of another SAE."""
        metrics, latents = read_of_sae(files.metrics, sae_id), read_of_sae(files.latents, sae_id)
        labels, twins = (None if path is None else read_of_sae(path, sae_id) for path in (files.labels, files.twins))
        curves = None if files.curves is None else read_parquet(files.curves)
        stability, card = read_json(files.stability), read_run_card(files.card)
        useful = None if files.usefulness is None else row_of(files.usefulness, sae_id)
        return cls(metrics, latents, stability, card, curves, labels, twins, useful)

    def learnt(self, corpus: str) -> str:
        """The word beside the outcome on a corpus: untested without twins that were judged there."""
        found = None if self.twins is None else self.twins["corpora"].get(corpus)
        return UNTESTED if found is None else found["learnt"]

    def dials(self, corpus: str, seed: int, limits: Taxonomy) -> list[Dial]:
        """Health on a corpus."""
        rows = [] if self.labels is None else self.labels["rows"]
        own = next((row for row in rows if row["dictionary"] == "sae" and row["negatives"] == "random"), None)
        stability = self.stability["saes"].get(str(seed))
        return dials(corpus, self.metrics, self.latents, stability, own, limits)


def sae_page(
    facts: SaeFacts, tables: Tables, links: Links, seed: int, limits: Taxonomy, public: bool
) -> dict[str, Any]:
    """The values of the template sae.html."""
    home = tables.home
    shown = facts.dials(home, seed, limits)
    card = public_card(facts.card) if public else facts.card
    return {
        "home": home,
        "outcome": facts.metrics["corpora"][home]["outcome"]["atlas"]["verdict"],
        "learnt": facts.learnt(home),
        "twins": _twins(facts, home),
        "useful": word_of(facts.usefulness),
        "scales": scales_of(facts.usefulness),
        "because": because(facts.metrics["corpora"][home]["outcome"]["atlas"], facts.metrics["corpora"][home]["atlas"]),
        "dials": shown,
        "warnings": [dial for dial in shown if dial.state in (BAD, LOOK)],
        "shape": _shape(facts.metrics),
        "map": _map(tables, links),
        "outcomes": [(name, count, percent(count / tables.n_latents)) for name, count in _outcomes(tables)],
        "outcome_bar": shares(dict(_outcomes(tables))),
        "corpora": _corpora(facts),
        "curves": None if facts.curves is None else _curves(facts.curves, facts.metrics["k"]),
        "monitored": facts.card["monitored"],
        "card": sections(card),
        "card_kind": "public" if public else "full",
        "training_warnings": card.get("warnings", []),
        "n_pages": len(links.pages),
        "n_latents": tables.n_latents,
        "labelled": facts.labels is not None,
    }


def index_line(facts: SaeFacts, tables: Tables, seed: int, limits: Taxonomy) -> dict[str, Any]:
    """Return what the index needs of an SAE, as plain JSON."""
    home = tables.home
    judged = facts.metrics["corpora"][home]
    return {
        "sae_id": facts.metrics["sae_id"],
        "home": home,
        "shape": _shape(facts.metrics),
        "outcome": judged["outcome"]["atlas"]["verdict"],
        "learnt": facts.learnt(home),
        "useful": word_of(facts.usefulness),
        "because": briefly(judged["outcome"]["atlas"]),
        "guide_outcome": judged["outcome"]["guide"]["verdict"],
        "guide": {key: judged["guide"][key] for key in ("loss_recovered_pct", "l0", "dead_pct")},
        "explained_all": judged["atlas"]["explained_variance"],
        "dials": [
            {key: getattr(dial, key) for key in ("key", "name", "value", "shown", "state", "null", "limit")}
            | {"interval": dial.interval, "domain": dial.domain}
            for dial in facts.dials(home, seed, limits)
        ],
        "latents": dict(_outcomes(tables)),
    }


def because(outcome: Mapping[str, Any], atlas: Mapping[str, Any]) -> str:
    """A verdict in words: the rules that fired with their numbers, and what was not known."""
    rules = "; ".join(_rule(rule) for rule in outcome["rules"])
    said = f"{rules[:1].upper()}{rules[1:]}." if rules else "No rule of the taxonomy fires."
    if "dead" in outcome["unknown"] and "dead_tokens" in atlas:
        said += f" Whether latents are dead is not known: {atlas['dead_tokens']:,} tokens are too few to tell."
    others = [name.replace("_", " ") for name in outcome["unknown"] if name != "dead"]
    return said + (f" Not known: {', '.join(others)}." if others else "")


def briefly(outcome: Mapping[str, Any]) -> str:
    """A verdict in one line of a table."""
    rules = "; ".join(_rule(rule) for rule in outcome["rules"]) or "no rule fires"
    return f"{rules}; dead: not known" if "dead" in outcome["unknown"] else rules


def _rule(rule: Mapping[str, Any]) -> str:
    value, limit = (
        short(rule[key]) if isinstance(rule[key], int | float) else rule[key] for key in ("value", "threshold")
    )
    if rule["rule"].endswith(("dead_above", "share_above", "dense_above")):
        value, limit = percent(rule["value"]), percent(rule["threshold"])
    name: str = rule["rule"]
    return RULES.get(name, name + ": {value} (limit {limit})").format(value=value, limit=limit)


def _shape(metrics: Mapping[str, Any]) -> str:
    k = "" if metrics["k"] is None else f", k = {metrics['k']}"
    return f"{metrics['architecture']}, {metrics['n_latents']:,} latents{k}, d = {metrics['d_model']:,}"


def _map(tables: Tables, links: Links) -> Markup:
    home = tables.at_home
    numbers = np.arange(len(home))
    if len(home) > MAP_LATENTS:
        numbers = np.sort(np.random.Generator(np.random.PCG64(0)).permutation(numbers)[:MAP_LATENTS])
    columns = home.density.to_numpy(), home.max_cosine.to_numpy(), [row["outcome"] for row in tables.labels]
    points = [
        (int(number), columns[0][number], columns[1][number], columns[2][number], _page(links, int(number)))
        for number in numbers
    ]
    random = tables.random.density.to_numpy(), tables.random.max_cosine.to_numpy()
    return constellation(points, random, DENSE_RATE, CLOSE_COPY)


def _page(links: Links, latent: int) -> str | None:
    return f"latents/{latent}.html" if latent in links.pages else None


def _outcomes(tables: Tables) -> list[tuple[str, int]]:
    """Latents by outcome, good ones first, those that say least last."""
    counts = tables.labelled.outcome.value_counts()
    return [(name, int(counts[name])) for name in reversed(LATENT_OUTCOMES) if name in counts]


def _twins(facts: SaeFacts, corpus: str) -> list[dict[str, str]]:
    """Each measure beside the best twin, on one corpus; none without twins."""
    found = None if facts.twins is None else facts.twins["corpora"].get(corpus)
    return [] if found is None else [_over_twin(name, each) for name, each in found["measures"].items()]


def _over_twin(name: str, measure: Mapping[str, Any]) -> dict[str, str]:
    ends = "" if measure["interval"] is None else f" [{', '.join(map(short, measure['interval']))}]"
    return {
        "name": name.replace("_", " "),
        "value": short(measure["value"]),
        "twin": short(measure["best_value"]),
        "kind": (measure["best_twin"] or "–").replace("_", " "),
        "better_by": short(measure["better_by"]) + ends,
        "learnt": measure["learnt"],
    }


def _corpora(facts: SaeFacts) -> list[dict[str, str]]:
    """Both protocols on every corpus, side by side."""
    found = []
    for name, judged in facts.metrics["corpora"].items():
        atlas, guide, outcome = judged["atlas"], judged["guide"], judged["outcome"]
        found.append(
            {
                "name": name,
                "role": {"in_sample": "in-sample", "proxy": "proxy", "oos": "out-of-sample"}[judged["role"]],
                "outcome": outcome["atlas"]["verdict"],
                "learnt": facts.learnt(name),
                "explained": short(atlas["explained_variance_regular"]),
                "all": short(atlas["explained_variance"]),
                "random": short(judged["random"]["explained_variance_regular"]),
                "recovered_mean": short(atlas.get("loss_recovered_mean_regular")),
                "recovered": short(atlas.get("loss_recovered_zero")),
                "delta": short(atlas.get("delta_loss_regular")),
                "l0": short(atlas["l0"]),
                "silent": f"{short(atlas['dead_pct'])} %",
                "dense": f"{short(atlas['dense_pct'])} %",
                "guide_outcome": outcome["guide"]["verdict"],
                "guide_recovered": f"{short(guide['loss_recovered_pct'])} %",
                "guide_l0": short(guide["l0"]),
                "guide_dead": f"{short(guide['dead_pct'])} %",
            }
        )
    return found


def _curves(frame: pd.DataFrame, k: int | None) -> list[tuple[str, Markup]]:
    def series(column: str, split: str) -> list[tuple[float, float]]:
        rows = frame[frame.split == split].dropna(subset=[column])
        return list(zip(rows.tokens.astype(float), rows[column].astype(float), strict=True))

    both = {"in-sample": "in_sample", "out-of-sample": "oos"}
    drawn = [
        ("Explained variance", lines({name: series("explained_variance", split) for name, split in both.items()})),
        ("L0", lines({name: series("l0", split) for name, split in both.items()}, reference=k, zero=True)),
        ("Silent share", lines({name: series("silent_share", split) for name, split in both.items()}, zero=True)),
        ("Threshold", lines({"threshold": series("threshold", "train")}, zero=True)),
        ("Learning rate", lines({"learning rate": series("lr", "train")}, zero=True)),
    ]
    return [(name, drawing) for name, drawing in drawn if drawing]


def latent_columns(tables: Tables, links: Links, promoted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The table of latents as columns of plain JSON; null is not known."""
    home, labels = tables.at_home, tables.labels
    outcomes = [name for name in LATENT_OUTCOMES if name in {row["outcome"] for row in labels}]
    partner = [
        max(
            (row["decoder_cosine"] for row in tables.partners_of.get(latent, []) if known(row["partner"])), default=None
        )
        for latent in range(len(home))
    ]
    return {
        "outcomes": outcomes,
        "outcome": [outcomes.index(row["outcome"]) for row in labels],
        "label": [row["label"] or "" for row in labels],
        "score": _rounded(row.get("random_score") for row in labels),
        "density": _rounded(home.density),
        "activation": _rounded(home.max_activation),
        "cosine": _rounded(home.max_cosine),
        "coherence": _rounded(home.coherence_z),
        "partner": _rounded(partner),
        "token": [token if isinstance(token, str) else "" for token in home.top_token],
        "promoted": [", ".join(tokens) for tokens in promoted],
        "page": "all" if len(links.pages) == len(home) else sorted(links.pages),
    }


def _rounded(values: Any) -> list[float | None]:
    return [float(f"{float(value):.3g}") if known(value) else None for value in values]
