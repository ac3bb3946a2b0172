"""The health of a dictionary as a row of dials: each a number, its doubt, its null, its limit, and a sentence."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from atlas.config.study import Taxonomy
from atlas.evaluation.outcome import COPIES, above_null
from atlas.site.charts import strip
from atlas.site.numbers import known, percent, short

OK, LOOK, BAD, UNKNOWN = "ok", "look", "bad", "unknown"


@dataclass(frozen=True)
class Dial:
    """A measure of health. `state` is ok, look (worth a look), bad (beyond a limit of the taxonomy) or unknown."""

    key: str
    name: str
    value: float | None
    shown: str
    says: str
    state: str
    null: float | None = None
    limit: float | None = None
    interval: tuple[float, float] | None = None
    domain: tuple[float, float] = (0.0, 1.0)

    @property
    def strip(self) -> Markup:
        """The dial drawn."""
        return strip(self.value, self.interval, self.null, self.limit, self.domain)


def dials(
    corpus: str,
    metrics: Mapping[str, Any],
    latents: Mapping[str, Any],
    stability: Mapping[str, Any] | None,
    labels: Mapping[str, Any] | None,
    limits: Taxonomy,
) -> list[Dial]:
    """All dials of an SAE on a corpus; `stability` is the part of this seed, `labels` the row of the first scorer."""
    found = [*_reconstruction(metrics["corpora"][corpus], limits), *_sparsity(metrics, corpus, latents, limits)]
    found += _redundancy(metrics["redundancy"], limits)
    found += _meaning(latents["corpora"][corpus])
    found += _drift(latents["corpora"])
    found += _stability(stability)
    return [*found, *_labels(labels)]


def _reconstruction(judged: Mapping[str, Any], limits: Taxonomy) -> Iterator[Dial]:
    atlas, random = judged["atlas"], judged["random"]
    value, low = atlas["explained_variance_regular"], atlas["explained_variance_regular_interval"]
    state = _share_state(value, limits, limits.weak_below)
    massive = judged["n_massive"] / judged["n_counted"]
    says = (
        f"Without the {percent(massive)} of tokens with massive activations; {short(atlas['explained_variance'])} over "
        f"all. A random dictionary explains {short(random['explained_variance_regular'])}."
    )
    null = random["explained_variance_regular"]
    yield Dial("explained", "Explained variance", value, short(value), says, state, null, limits.weak_below, _pair(low))
    value = atlas.get("loss_recovered_mean_regular")
    says = (
        "Of what it costs to put the mean row in place of all but massive activations; "
        f"{short(atlas.get('delta_loss_regular'))} more than the clean {atlas.get('loss_kind') or 'loss'}. With "
        f"massive ones {short(atlas.get('loss_recovered_mean'))}, against zero ablation "
        f"{short(atlas.get('loss_recovered_zero'))}."
    )
    if not known(value):
        says = (judged.get("reasons") or {}).get("atlas_loss_recovered_mean_regular", "Not defined for this model.")
    interval, limit = _pair(atlas.get("loss_recovered_mean_regular_interval")), limits.weak_recovered_below
    state = _share_state(value, limits, limit)
    yield Dial("recovered", "Loss recovered", value, short(value), says, state, None, limit, interval)


def _share_state(value: Any, limits: Taxonomy, weak_below: float) -> str:
    """Of a share that the mean row has 0 of, and the true row 1."""
    if not known(value):
        return UNKNOWN
    return BAD if value < limits.failed_below else LOOK if value < weak_below else OK


def _sparsity(metrics: Mapping[str, Any], corpus: str, latents: Mapping[str, Any], limits: Taxonomy) -> Iterator[Dial]:
    atlas, guide = metrics["corpora"][corpus]["atlas"], metrics["corpora"][corpus]["guide"]
    l0, k = atlas["l0"], atlas["l0_target"]
    state = BAD if atlas["sparsity_constraint_broken"] else OK
    target = "No target." if k is None else f"The target is k = {k}."
    before = short(guide["l0"])
    says = f"Latents per token on the inference path. {target} Counted before the selection, as published: {before}."
    yield Dial("l0", "L0", l0, short(l0), says, state, limit=k, domain=(0.0, max(2.0 * (k or l0 or 1), l0 or 0)))
    dead, tested = atlas["dead_pct"] / 100, atlas["dead_status"] == "dead"
    limit = limits.unhealthy_dead_above
    if tested:
        state = BAD if dead > limit else OK
        says = f"Silent in {atlas['dead_tokens']:,} tokens; {short(atlas['expected_false_dead'])} would be by chance."
    else:
        state = UNKNOWN
        says = (
            f"Silent in {atlas['dead_tokens']:,} tokens, too few to call a latent dead: one that fires on "
            f"{percent(atlas['dead_rate_bound'])} of tokens may look so."
        )
    name = "Dead latents" if tested else "Silent latents"
    yield Dial("dead", name, dead, percent(dead), says, state, limit=limit)
    own = latents["corpora"][corpus]
    dense, null = atlas["dense_pct"] / 100, own["random"]["dense_share"]
    state = BAD if dense > limits.dense_above else LOOK if dense > limits.dense_above / 2 else OK
    says = f"Fire on more than 10 % of tokens. In a random dictionary {percent(null)}."
    yield Dial("dense", "Dense latents", dense, percent(dense), says, state, null, limits.dense_above)


def _redundancy(redundancy: Mapping[str, Any], limits: Taxonomy) -> Iterator[Dial]:
    own, published = redundancy[COPIES], redundancy["absorption_guide"]
    limit = above_null(limits.unhealthy_share_above, (own["null_mean"], own["null_sd"]))
    state = BAD if own["value"] > limit else OK
    says = (
        "Latents with a decoder cosine above .7 to another one. The mean of the largest cosines, as the guide has it, "
        f"is {short(published['value'])}, in random dictionaries {short(published['null_mean'])}."
    )
    yield Dial("copies", "Copies", own["value"], percent(own["value"]), says, state, own["null_mean"], limit)


def _meaning(own: Mapping[str, Any]) -> Iterator[Dial]:
    sae, random = own["sae"], own["random"]
    value, null = sae["coherent_share"], random["coherent_share"]
    if known(value):
        beaten = sae["coherence_interval"] is not None and sae["coherence_interval"][0] > random["coherence"]
        says = f"Latents whose strongest contexts are about one thing. In a random dictionary {percent(null)}."
        yield Dial("coherent", "Coherent latents", value, percent(value), says, OK if beaten else LOOK, null)
    value, null, interval = sae["artefact_share"], random["artefact_share"], sae["artefact_share_interval"]
    if known(value):
        more = interval is not None and known(null) and interval[0] > 2 * null
        says = f"Fire on layout, digits, punctuation, or a text's first token. In a random dictionary {percent(null)}."
        state = LOOK if more else OK
        yield Dial(
            "artefacts", "Formatting artefacts", value, percent(value), says, state, null, interval=_pair(interval)
        )


def _drift(corpora: Mapping[str, Any]) -> Iterator[Dial]:
    far = [(name, own) for name, own in corpora.items() if own["role"] == "oos" and "drift" in own["sae"]]
    for name, own in far[:1]:
        js = own["sae"]["drift"]["js_divergence"]
        state = UNKNOWN if not known(js["z"]) else LOOK if js["z"] > 3 else OK
        says = (
            f"How firing differs on {name} (JS divergence); between halves of the home corpus {short(js['null_mean'])}."
        )
        shown, domain = short(js["value"]), (0.0, max(0.3, js["value"] or 0))
        yield Dial("drift", "Drift", js["value"], shown, says, state, js["null_mean"], domain=domain)


def _stability(own: Mapping[str, Any] | None) -> Iterator[Dial]:
    if own is None:
        return
    if own["firing"] is None:
        says = (own.get("reasons") or {}).get("stability", "Not known.")
        yield Dial("stable", "Shared with other seeds", None, short(None), f"{says[:1].upper()}{says[1:]}.", UNKNOWN)
        return
    shared, likeness = own["firing"]["shared"], own["firing"]["pw_mcc"]
    says = (
        f"Latents that another seed finds too. Mean cosine of partners {short(likeness['value'])}, of random "
        f"dictionaries {short(likeness['null_mean'])}."
    )
    state = LOOK if shared["value"] < 0.25 else OK
    null, interval = shared["null_mean"], _pair(shared["interval"])
    yield Dial(
        "stable",
        "Shared with other seeds",
        shared["value"],
        percent(shared["value"]),
        says,
        state,
        null,
        None,
        interval,
    )


def _labels(row: Mapping[str, Any] | None) -> Iterator[Dial]:
    if row is None:
        return
    value, null = row["score"]["value"], row["random_score"]
    says = (
        f"How well labels tell where their latents fire; chance is .5, other latents' labels reach "
        f"{short(row['shuffled']['value'])}, a random dictionary's {short(null)}. It {row['verdict']}."
    )
    if not known(value):
        yield Dial("labels", "Label score", None, short(None), "No label could be tested.", UNKNOWN)
        return
    state, interval = OK if row["verdict"] == "beats its controls" else LOOK, _pair(row["score"]["interval"])
    says = says.replace("It beats", "They beat").replace("It does not beat", "They do not beat").replace("its", "their")
    yield Dial("labels", "Label score", value, short(value), says, state, null, 0.5, interval, (0.4, 1.0))


def _pair(interval: Any) -> tuple[float, float] | None:
    return None if interval is None else (float(interval[0]), float(interval[1]))
