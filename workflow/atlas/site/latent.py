"""Content of the page of one latent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from markupsafe import Markup

from atlas.autointerp.by_context import FACTS, column
from atlas.autointerp.explainers import Promoted, first_of_names
from atlas.latents.token_classes import CLASSES
from atlas.site.charts import bars, dots, ticks
from atlas.site.contexts import Context, ContextSettings, Corpora, RowFirings
from atlas.site.effects import Effects
from atlas.site.logits import Logits
from atlas.site.numbers import known, percent, short
from atlas.site.tables import Tables
from atlas.site.text import TokenPieces, highlighted, visible

# Largest page of a latent: there are thousands of them.
PAGE_BYTES = 20 * 1024
# Windows of each kind that are shown of a label's test.
SHOWN_ANSWERS = 2
# How a scorer reads a label.
READINGS = {"words": "word by word", "embedding": "as a topic", "detection": "by a language model"}
# Facts of a token, as the subject of a sentence.
TOLD_BY = {
    "token": "The token alone",
    "next token": "The token that follows",
    "first letter": "The first letter of the token",
    "last letters": "The last letters of the token",
}
KINDS = {
    "activating": "where it fires",
    "random": "where it is silent, at random",
    "hard": "where it is silent, but its nearest latents fire",
}


@dataclass(frozen=True)
class Links:
    """Pages that exist: latents with a page, and where other seeds of the recipe are (seed → folder of latents)."""

    pages: frozenset[int]
    seeds: Mapping[int, str] = field(default_factory=dict)

    def latent(self, number: int) -> str | None:
        """Link from a latent's page to another one of the same SAE."""
        return f"{number}.html" if number in self.pages else None

    def partner(self, seed: int, number: int) -> str | None:
        """Link to a latent of another seed: its dictionary is of the same size, hence the same latents have pages."""
        return f"{self.seeds[seed]}/{number}.html" if seed in self.seeds and number in self.pages else None


@dataclass(frozen=True, eq=False)
class Scene:
    """Data that all latents of an SAE share. `nearest` and `cosines` are the nearest decoder directions of each.

    `promoted` is what labels say of the output too; `logits` are raw ones, of Neuronpedia's batches alone.
    `effects` are what they do as measured, where that was asked.
    """

    tables: Tables
    corpora: Corpora
    pieces: TokenPieces
    contexts: ContextSettings
    promoted: Promoted | None
    nearest: np.ndarray
    cosines: np.ndarray
    links: Links
    logits: Logits | None = None
    effects: Effects | None = None


@dataclass(frozen=True)
class Line:
    """One context: where it is from, its number (activation, or answer), and its text."""

    corpus: str
    number: str
    text: Markup


@dataclass(frozen=True)
class ContextGroup:
    """Contexts under one heading; `left_out`: how many more there would be on a larger page."""

    title: str
    note: str
    lines: list[Line]
    left_out: int = 0


def latent_page(scene: Scene, firings: RowFirings) -> dict[str, Any]:
    """The values of the template latent.html."""
    latent, rows = firings.latent, scene.tables.of(firings.latent)
    said, home = scene.tables.labels[latent], rows[scene.tables.home]
    counts, edges = firings.histogram()
    return {
        "latent": latent,
        "label": visible(said["label"]) if said["label"] else None,
        "outcome": said["outcome"],
        "because": because(said, home, scene.tables.home),
        "facts": _facts(home, firings),
        "histogram": bars(counts, edges) if len(firings.value) else None,
        "largest": firings.largest,
        "groups": _groups(scene, firings),
        "score": _score(said),
        "answers": _answers(scene, firings),
        "corpora": _corpora(rows),
        "classes": _classes(home),
        "promoted": _tokens(scene, latent, "raised"),
        "suppressed": _tokens(scene, latent, "lowered"),
        "neighbours": _neighbours(scene, latent),
        "partners": _partners(scene, latent),
        "effects": None if scene.effects is None else scene.effects.page(latent),
    }


def because(said: Mapping[str, Any], home: Mapping[str, Any], corpus: str) -> str:
    """Return why a latent has its outcome, with the numbers that decided."""
    interval = f"[{short(said.get('random_score_low'))}, {short(said.get('random_score_high'))}]"
    score = f"{short(said.get('random_score'))} {interval}"
    more = f"{short(said.get('random_specificity'))}, at least {short(said.get('random_specificity_low'))}"
    reading = READINGS.get(str(said.get("scorer")), str(said.get("scorer")))
    limit = short(said.get("limit"))
    good = (
        f"Its label, read {reading}, scores {score}: above {limit}, which hardly a latent of a random dictionary "
        f"reaches, and more than other latents' labels do (difference {more})."
    )
    if said.get("told_by") in FACTS:
        good = (
            f"{TOLD_BY[said['told_by']]} predicts where it fires strongly: correlation "
            f"{short(said[column(said['told_by'])])} on other documents; hardly a latent of a random dictionary "
            f"reaches {short(said.get('fact_limit'))}."
        )
    reasons = {
        "dead": f"It never fires in {home['n_tokens']:,} tokens.",
        "untested": f"It never fires in {home['n_tokens']:,} tokens, too few to call it dead.",
        "duplicated": f"A copy: its direction has cosine {short(home['max_cosine'])} with latent {home['nearest']}'s.",
        "noisy": f"It fires on {percent(home['density'])} of the tokens of {corpus}; above "
        f"{percent(said['noisy_above'])} is too often.",
        "unscored": f"Its label was not tested: {said.get('random_reason') or 'there are no labels'}.",
        "uninterpreted": "Neither the token, nor the next one, nor the spelling, nor its label tells where it fires: "
        f"read {reading}, the label scores {score}, and .5 is chance.",
        "deceptively-good": f"Its label, read {reading}, scores {score}: above chance, but labels of other latents or "
        f"of a random dictionary do as well (difference to other latents' {more}; limit {limit}).",
        "good": good,
    }
    return reasons.get(said["outcome"], "")


def _facts(home: Mapping[str, Any], firings: RowFirings) -> list[tuple[str, str]]:
    token = visible(home["top_token"]) if isinstance(home["top_token"], str) else None
    null = f"random contexts {short(home['coherence_null_mean'])}; z {short(home['coherence_z'])}"
    facts = [
        ("fires on", f"{percent(home['density'])} of tokens, {int(home['n_firings']):,} of {home['n_tokens']:,}"),
        ("strongest activation", short(firings.largest or None)),
        (
            "favourite token",
            f"“{token}”, {percent(home['top_token_mass'])} of the activation" if token else short(None),
        ),
        ("coherence of contexts", f"{short(home['coherence'])} ({null})" if known(home["coherence"]) else short(None)),
        ("encoder and decoder", f"cosine {short(home['encoder_decoder_cosine'])}"),
    ]
    if home["formatting_artefact"] is True:
        facts.append(("formatting artefact", "yes: layout, digits, punctuation, or a text's first token"))
    if known(home["massive_share"]) and home["massive_share"] > 0.01:
        facts.append(("on massive activations", f"{percent(home['massive_share'])} of its firings"))
    return facts


def _groups(scene: Scene, firings: RowFirings) -> list[ContextGroup]:
    if not len(firings.value):
        return []
    chosen = scene.corpora.contexts(firings, scene.contexts)
    groups = []
    for stratum in sorted({context.stratum for context in chosen}):
        own = [context for context in chosen if context.stratum == stratum]
        first = own[0]
        if stratum == 0:
            title, note = "Strongest contexts", "one per document"
        else:
            title = f"Stratum {stratum} of {scene.contexts.strata}"
            bounds = f"activations {short(first.low)} to {short(first.high)}"
            note = f"{bounds}, {percent(first.share)} of firings; drawn by chance"
            if any(context.again for context in own):
                note += "; there are too few documents: some are shown before"
        groups.append(ContextGroup(title, note, [_line(scene, firings, context) for context in own]))
    return groups


def fewer_lines(groups: Sequence[ContextGroup], n_bytes: int) -> list[ContextGroup]:
    """Without as many contexts as take `n_bytes`: each time the last of the largest group, never its only one.

    The strongest contexts, the first group, may be two and a half times as many as those of a stratum. Groups say how
    many they lack.
    """
    kept, saved = [group.lines for group in groups], 0
    while saved < n_bytes and max(map(len, kept), default=0) > 1:
        sizes = [len(lines) / (1 if number else 2.5) for number, lines in enumerate(kept)]
        place = max((number for number, lines in enumerate(kept) if len(lines) > 1), key=sizes.__getitem__)
        kept[place], last = kept[place][:-1], kept[place][-1]
        saved += len(last.text.encode())
    return [
        replace(group, lines=lines, left_out=group.left_out + len(group.lines) - len(lines))
        for group, lines in zip(groups, kept, strict=True)
    ]


def _line(scene: Scene, firings: RowFirings, context: Context) -> Line:
    tokens = scene.corpora.tokens(context.corpus, context.start, context.start + len(context.values))
    peak = context.peak - context.start
    massive = context.massive.tolist()
    text = highlighted(scene.pieces, tokens, context.values.tolist(), firings.shade_scale, peak, massive)
    return Line(scene.corpora.names[context.corpus], short(context.peak_value), text)


def _score(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Score and controls as rows: name, value, interval, drawing."""
    rows = []
    for kind, name in (("random", "random negatives"), ("hard", "hard negatives")):
        if known(said.get(f"{kind}_score")):
            low, high = said[f"{kind}_score_low"], said[f"{kind}_score_high"]
            rows.append((f"its label, {name}", said[f"{kind}_score"], low, high))
            rows.append(("other latents' labels", said[f"{kind}_shuffled"], None, None))
            rows.append(("one text for all", said[f"{kind}_blind"], None, None))
    drawn = dots([row[1:] for row in rows], (0.0, 1.0), 0.5)
    return [
        {"name": name, "value": short(value), "own": name.startswith("its"), "drawn": drawing}
        for (name, value, _, _), drawing in zip(rows, drawn, strict=True)
    ]


def _answers(scene: Scene, firings: RowFirings) -> list[dict[str, Any]]:
    """The scorer's answers by kind of window, with the windows on which it was most mistaken."""
    rows = [row for row in scene.tables.answers_of.get(firings.latent, []) if known(row["answer"])]
    if not rows:
        return []
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in KINDS}
    drawn = ticks({kind: [row["answer"] for row in own] for kind, own in kinds.items()})
    # An activating window with a low answer is a miss, a silent one with a high answer a false alarm.
    found = []
    for kind, own in kinds.items():
        worst = sorted(own, key=lambda row: row["answer"] if row["kind"] == "activating" else -row["answer"])
        title = "the most missed" if kind == "activating" else "the most mistaken"
        lines = [_window(scene, firings, row) for row in worst[:SHOWN_ANSWERS]]
        mean = short(float(np.mean([row["answer"] for row in own]))) if own else short(None)
        found.append(
            {"name": KINDS[kind], "n": len(own), "mean": mean, "drawn": drawn[kind], "title": title, "lines": lines}
        )
    return found


def _window(scene: Scene, firings: RowFirings, row: Mapping[str, Any]) -> Line:
    corpus, start, stop = scene.corpora.names.index(row["corpus"]), row["start"], row["start"] + row["width"]
    values = scene.corpora.around(firings, corpus, start, stop).tolist()
    tokens, massive = scene.corpora.tokens(corpus, start, stop), scene.corpora.massive(corpus, start, stop).tolist()
    text = highlighted(scene.pieces, tokens, values, firings.shade_scale, massive=massive)
    return Line(row["corpus"], f"{row['answer']:.2f}".replace("-", "−"), text)


def _corpora(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Firing rates with their intervals on one logarithmic scale, and what moved."""
    given = [(row["density"] or None, row["density_low"] or 1e-6, row["density_high"]) for row in rows.values()]
    drawn = dots(given, (1e-5, 1.0), logarithmic=True)
    found = []
    for (name, row), drawing in zip(rows.items(), drawn, strict=True):
        change = "silent here, not at home" if row["newly_silent"] is True else ""
        if not change and known(row["log_rate_ratio"]):
            change = f"{short(float(np.exp(row['log_rate_ratio'])))} × home"
        role = {"in_sample": "in-sample", "proxy": "proxy", "oos": "out-of-sample"}[row["role"]]
        found.append({"name": name, "role": role, "rate": percent(row["density"]), "drawn": drawing, "change": change})
    return found


def _classes(home: Mapping[str, Any]) -> list[dict[str, str]]:
    """Classes of tokens by their share of the activation; lift is that share over the class' share of the text."""
    found = [(name, home[f"mass_{name}"], home[f"lift_{name}"]) for name in CLASSES if f"mass_{name}" in home]
    found = sorted((row for row in found if known(row[1]) and row[1] >= 0.005), key=lambda row: -row[1])
    return [
        {"name": name, "mass": percent(mass), "lift": f"{short(lift)} ×", "width": str(max(1, round(100 * mass)))}
        for name, mass, lift in found
    ]


def _tokens(scene: Scene, latent: int, which: str) -> list[tuple[str, str]]:
    """Tokens with values, each name once, as labels list them."""
    if scene.promoted is None:
        return []
    tokens, values = getattr(scene.promoted, which)[latent], getattr(scene.promoted, f"{which}_values")[latent]
    places = [place for _, place in first_of_names(tokens, scene.promoted.texts)]
    return [(visible(scene.pieces.text(int(tokens[place]))), short(values[place])) for place in places]


def _neighbours(scene: Scene, latent: int) -> list[dict[str, Any]]:
    labels = scene.tables.labels
    return [
        {"latent": number, "cosine": short(cosine), "label": _name(labels[number]), "link": scene.links.latent(number)}
        for number, cosine in zip(scene.nearest[latent].tolist(), scene.cosines[latent].tolist(), strict=True)
    ]


def _partners(scene: Scene, latent: int) -> list[dict[str, Any]]:
    found = []
    for row in scene.tables.partners_of.get(latent, []):
        if known(row["partner"]):
            number, seed = int(row["partner"]), int(row["other_seed"])
            link, cosine = scene.links.partner(seed, number), short(row["decoder_cosine"])
            found.append(
                {"seed": seed, "latent": number, "cosine": cosine, "shared": bool(row["shared"]), "link": link}
            )
    return found


def _name(said: Mapping[str, Any]) -> str:
    return visible(said["label"]) if said["label"] else said["outcome"]


def promoted_text(scene: Scene, latent: int, count: int = 5) -> Sequence[str]:
    """The first promoted tokens, without spaces, for searching."""
    return [text.strip() for text, _ in _tokens(scene, latent, "raised")[:count]]
