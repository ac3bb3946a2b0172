"""Effects of a latent for its page: its effect against nulls, dose curve, tokens as measured, continuations."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.autointerp.words import name_of
from atlas.site.charts import dots, lines
from atlas.site.numbers import known, short
from atlas.site.tables import read_of_sae
from atlas.site.text import visible

# Tokens of each list that a page shows, and how large the line of effects reaches, in nats.
_SHOWN_TOKENS = 6
_UNMEASURED = "It was not measured: the sample of latents that were does not hold it."


@dataclass(frozen=True)
class EffectFiles:
    """effects, doses, tokens and continuations of one SAE, as `atlas.causal.run` writes them."""

    effects: Path
    doses: Path
    tokens: Path
    continuations: Path


@dataclass(frozen=True, eq=False)
class Effects:
    """Rows of each table by latent."""

    of: Mapping[int, Mapping[str, Any]]
    doses: Mapping[int, list[Mapping[str, Any]]]
    tokens: Mapping[int, list[Mapping[str, Any]]]
    continuations: Mapping[int, list[Mapping[str, Any]]]

    @classmethod
    def read(cls, files: EffectFiles, sae_sha256: str) -> "Effects":
        """Raises EvaluationError when a table is of another SAE than `sae_sha256`."""
        effects = read_of_sae(files.effects, sae_sha256)
        rest = []
        for path in (files.doses, files.tokens, files.continuations):
            table = read_of_sae(path, sae_sha256)
            rest.append({int(latent): rows.to_dict("records") for latent, rows in table.groupby("latent")})
        return cls({row["latent"]: row for row in effects.to_dict("records")}, *rest)

    def page(self, latent: int) -> dict[str, Any]:
        """The values of the section "What it does"."""
        row = self.of.get(latent)
        if row is None or not row["n_measured"]:
            said = _UNMEASURED if row is None else f"Not measured: {row['reason']}."
            return {"verdict": said, "nulls": [], "curve": None, "tokens": [], "continuations": []}
        return {
            "verdict": _verdict(row),
            "nulls": _nulls(row),
            "curve": self._curve(latent),
            "tokens": [
                (which, self._tokens(latent, which), self._null_lift(latent, which))
                for which in ("promoted", "suppressed")
            ],
            "continuations": [_continuation(each) for each in self.continuations.get(latent, [])],
        }

    def _curve(self, latent: int) -> object:
        rows = [each for each in self.doses.get(latent, []) if known(each["kl"])]
        if not rows:
            return None
        series = {
            "this latent": [(each["clamp"], each["kl"]) for each in rows],
            "a random direction": [(each["clamp"], each["kl_random"]) for each in rows],
        }
        return lines(series, zero=True, unit="× largest")

    def _tokens(self, latent: int, which: str) -> list[tuple[str, str]]:
        rows = [each for each in self.tokens.get(latent, []) if (each["which"], each["dictionary"]) == (which, "sae")]
        return [(_token(each["text"]), short(each["lift"])) for each in rows[:_SHOWN_TOKENS]]

    def _null_lift(self, latent: int, which: str) -> str | None:
        """Mean lift of the tokens that were chosen in the same way for random directions."""
        lifts = [
            each["lift"]
            for each in self.tokens.get(latent, [])
            if (each["which"], each["dictionary"]) == (which, "random")
        ]
        return short(sum(lifts) / len(lifts)) if lifts else None


def _token(text: str) -> str:
    """A token's text; white space alone by its name."""
    return visible(text) if text.strip() else name_of(text)


def _verdict(row: Mapping[str, Any]) -> str:
    numbers = (
        f"Without it, predictions where it fires move by {short(row['kl'])} nats (KL), "
        f"{short(row['kl_random'])} without a random direction of the same length; "
        f"{row['n_measured']} firings in {row['n_documents']} documents."
    )
    if row["verdict"] == "not measured":
        return f"{numbers} Not judged: {row['reason']}."
    return f"{row['verdict'][:1].upper()}{row['verdict'][1:]}. {numbers}{_by_tokens(row)}"


def _by_tokens(row: Mapping[str, Any]) -> str:
    """Say by what a latent is judged whose removal moves predictions no more than a random direction's does."""
    low, stated_low = (row.get(name) for name in ("kl_over_random_low", "stated_lift_over_random_low"))
    if not known(stated_low) or stated_low <= 0 or (known(low) and low > 0):
        return ""
    return (
        f" It is told from a random direction by the tokens that its weights promote: their logits lose "
        f"{short(row['stated_lift'])} without it, {short(row['stated_lift_random'])} without the random direction."
    )


def _nulls(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Effect beside its nulls on one scale: name, value, drawing, reason for what there is not."""
    given = [("this latent", "kl"), ("a random direction", "kl_random")]
    other = "another latent" if not known(row["other"]) else f"latent {int(row['other'])}, which fires as often"
    twin = (
        f"the same latent of its twin ({row['twin'].replace('_', ' ')})" if known(row.get("twin")) else "a trained twin"
    )
    given += [(other, "kl_other"), (twin, "kl_twin")]
    numbers = [(row.get(key), row.get(f"{key}_low"), row.get(f"{key}_high")) for _, key in given]
    highest = max((value for each in numbers for value in each if known(value)), default=0.0) or 1e-6
    drawn = dots(numbers, (0.0, highest))
    return [
        {
            "name": name,
            "value": short(value),
            "drawn": drawing,
            "own": key == "kl",
            "reason": row["kl_twin_reason"] if key == "kl_twin" and not known(value) else None,
        }
        for (name, key), (value, _, _), drawing in zip(given, numbers, drawn, strict=True)
    ]


def _continuation(row: Mapping[str, Any]) -> dict[str, Any]:
    text = visible(row["text"]) if isinstance(row["text"], str) else None
    return {
        "clamp": f"{row['clamp']:g}",
        "prompt": visible(row["prompt"]),
        "text": text,
        "clean": visible(row["clean_text"]),
        "kl": short(row["kl"]),
        "reason": row["reason"],
    }
