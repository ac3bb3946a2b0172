"""The table of a study: one tidy row per SAE and evaluation corpus."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from atlas.files import read_json
from atlas.hook_points import HookPoint
from atlas.sae_ids import split_shift
from atlas.statistics.intervals import least_difference
from atlas.studies.published import published_for
from atlas.studies.rows import frame_of, unknown_of
from atlas.studies.twins import read_comparisons, twin_columns
from atlas.tables import write_csv
from atlas.twins.learnt import UNTESTED


def write_study_table(
    study: str,
    metrics: Mapping[str, Path],
    corpora: Mapping[str, Sequence[str]],
    published: str | None,
    table: Path,
    comparisons: Mapping[str, Path] | None = None,
    kinds: Sequence[str] = (),
) -> None:
    """Write results/<study>.csv from the metrics of its SAEs (SAE id → metrics.json), in their order, on its `corpora`.

    The id of an SAE that is judged under a shift ends in its name. `comparisons` are the twins.json of SAEs in a study
    with twins of these `kinds`; `learnt` is untested in a study without.
    Columns are documented in docs/metrics.md. A value that is not defined is empty, and `reasons` says why.
    """
    found = read_comparisons(comparisons or {})
    rows = [
        table_row(study, sae_id, read_json(path), corpus, published) | twin_columns(found.get(sae_id), corpus, kinds)
        for sae_id, path in metrics.items()
        for corpus in corpora[sae_id]
    ]
    write_csv(table, frame_of(rows))


def table_row(study: str, sae_id: str, metrics: dict[str, Any], corpus: str, published: str | None) -> dict[str, Any]:
    """One row of a study's table, as columns: of one SAE on one evaluation corpus."""
    own, shift = split_shift(sae_id)
    names, hooks, judged = own.columns, own.hooks, metrics["corpora"][corpus]
    unknown = unknown_of(str(own))
    point = HookPoint.parse(hooks.source)
    outcome = judged["outcome"]
    return {
        "study": study,
        "model": names["model"],
        "random_weights": random_seed(metrics.get("random_weights")),
        "hook": hooks.source,
        "target_hook": hooks.target_hook,
        "site": point.site,
        "layer": point.layer,
        "mix": names["mix"],
        "recipe": names["recipe"],
        "training_text": "stated by the user" if unknown else "known",
        "architecture": metrics["architecture"],
        "n_latents": metrics["n_latents"],
        "d_model": metrics["d_model"],
        "k": metrics["k"],
        "seed": names["seed"],
        "shift": shift,
        "corpus": corpus,
        "role": judged["role"],
        "n_tokens": judged["n_tokens"],
        "n_counted": judged["n_counted"],
        "n_massive": judged["n_massive"],
        "outcome": outcome["atlas"]["verdict"],
        "learnt": UNTESTED,
        "outcome_because": because(outcome["atlas"]),
        "outcome_unknown": "; ".join(outcome["atlas"]["unknown"]),
        **dict(flat("atlas", judged["atlas"])),
        **dict(flat("redundancy", metrics["redundancy"])),
        **_random(judged["random"]),
        "guide_outcome": outcome["guide"]["verdict"],
        "guide_outcome_because": because(outcome["guide"]),
        **dict(flat("guide", judged["guide"])),
        # What was published are SAEs at home: a transcoder of the same layer and size is no counterpart of theirs.
        **published_for(None if hooks.is_transcoder or shift else published, point.layer, metrics["n_latents"]),
        "reasons": json.dumps(
            metrics["reasons"] | judged.get("reasons", {}) | unknown, ensure_ascii=False, sort_keys=True
        ),
    }


def random_seed(random_weights: int | None) -> str | None:
    """Return how tables say it. Not a bare number: a column of which some are empty would become 0.0."""
    return None if random_weights is None else f"seed {random_weights}"


def _random(judged: dict[str, Any]) -> dict[str, Any]:
    """Return what a random dictionary of the same shape scores on the same rows."""
    numbers = {f"random_{key}": value for key, value in judged.items() if key != "outcome"}
    return numbers | {"random_outcome": judged["outcome"]["verdict"]}


def because(outcome: dict[str, Any]) -> str:
    """The rules that fired, readable: ``dead_pct 67.7 > 50``."""
    return "; ".join(
        f"{rule['rule']}: {_short(rule['value'])} (limit {_short(rule['threshold'])})" for rule in outcome["rules"]
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Nested results as columns; an interval [low, high] becomes two, and the least difference that it could tell."""
    for key, value in values.items():
        name = f"{prefix}_{key}"
        if isinstance(value, Mapping):
            yield from flat(name, value)
        elif key.endswith("interval"):
            low, high = value or (None, None)
            yield f"{name}_low", low
            yield f"{name}_high", high
            yield f"{name.removesuffix('interval')}least_difference", value and least_difference(value[0], value[1])
        else:
            yield name, value
