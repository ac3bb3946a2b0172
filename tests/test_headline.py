"""What README and tutorial say of the recipe `massive-kept` holds for every seed and number format that is recorded.

The pages quote no number outside the tables that are made from docs/results/massive_kept.csv; their words stand for the
limits below, which leave room for other machines: third digits, and which seed fails, depend on the machine.
"""

import csv
import re
from math import inf

import pytest

from atlas.docs.pages import RESULTS, ROOT

README, TUTORIAL = (ROOT / name for name in ("README.md", "docs/tutorial.md"))
PATHS = ("bfloat16", "float32")
# Words of the pages, and what must hold of the recorded values: (column, recipe, least, largest).
SAID = {
    README: {
        '"recovers" about nine tenths or more': ("guide_loss_recovered_pct", "massive-kept", 85, 100),
        "a sound one recovers about half": ("guide_loss_recovered_pct", "topk", 40, 60),
    },
    TUTORIAL: {
        "the honest dictionary looks *worse* with all tokens": ("atlas_explained_variance", "topk", 0.3, 0.65),
        "Few tokens at this layer": ("n_massive", "massive-kept", 1, 164),  # 1 % of 16,384
        "explains less than .05 without massive": ("atlas_explained_variance_regular", "massive-kept", -inf, 0.66),
    },
}
ORDER = (
    "explains less of the text, but for a handful of tokens",
    "the honest dictionary looks *worse* with all tokens",
)
# Numbers of the tutorial's prose that are no measurements: limits of the rules.
LIMITS = {".05", ".9"}


def rows() -> list[dict[str, str]]:
    path = RESULTS / "massive_kept.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["corpus"] == "chat"]


def values(column: str, recipe: str) -> list[float]:
    return [float(row[column]) for row in rows() if row["recipe"] == recipe]


def prose(text: str) -> str:
    """A page without code, generated tables and links."""
    for pattern in (r"<!-- table:.*?<!-- end of table -->", r"```.*?```", r"`[^`\n]*`", r"\]\([^)]*\)"):
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    return text


def measured_numbers(text: str) -> set[str]:
    """Decimals, percentages and nats: what a measurement would look like."""
    return set(re.findall(r"(?<![\w.])[−-]?\d*\.\d+|\d+(?= (?:%|nats))", text))


def test_no_number_is_quoted_outside_the_generated_tables():
    headline = README.read_text(encoding="utf-8").split("One headline number")[1].split("\n\n")[0]
    assert measured_numbers(prose(headline)) == set()
    assert measured_numbers(prose(TUTORIAL.read_text(encoding="utf-8"))) == LIMITS
    assert measured_numbers("97.8 % and −.060, 4 nats; 54 %") == {"97.8", "−.060", "4", "54"}


@pytest.mark.parametrize("page", SAID, ids=lambda page: page.name)
def test_words_of_the_pages_hold_for_every_seed_and_number_format(page):
    text = " ".join(page.read_text(encoding="utf-8").split())
    for words, (column, recipe, least, largest) in SAID[page].items():
        assert words in text
        for path in PATHS:
            found = values(column, f"{recipe}-{path}")
            assert all(least <= value <= largest for value in found), (words, path, found)


def test_the_order_without_massive_activations_is_reversed_for_every_seed_and_number_format():
    for page, words in zip(SAID, ORDER, strict=True):
        assert words in " ".join(page.read_text(encoding="utf-8").split())
    for path in PATHS:
        column = "atlas_explained_variance_regular"
        sick, sound = (values(column, f"{recipe}-{path}") for recipe in ("massive-kept", "topk"))
        assert not rows() or max(sick) < min(sound), (path, sick, sound)


def test_every_seed_of_the_sick_recipe_costs_the_model_more():
    assert "every seed of `massive-kept` costs the model more than `topk` does" in TUTORIAL.read_text(encoding="utf-8")
    for path in PATHS:
        for column in ("atlas_delta_loss", "atlas_delta_loss_regular"):
            sick, sound = (values(column, f"{recipe}-{path}") for recipe in ("massive-kept", "topk"))
            assert not rows() or min(sick) > max(sound), (path, column, sick, sound)


def test_massive_activations_hold_nearly_all_of_the_variance():
    assert "hold nearly all of the variance" in " ".join(TUTORIAL.read_text(encoding="utf-8").split())
    for row in rows():
        whole, regular = (float(row[f"atlas_explained_variance{end}"]) for end in ("", "_regular"))
        # What is not explained of regular rows is a part of all that is not explained: so their share of the variance
        # is at most this, and they are the rest.
        assert (1 - whole) / (1 - regular) < 0.05 or row["recipe"].startswith("topk"), row["recipe"]


def test_what_is_recorded_has_all_seeds_and_both_number_formats():
    seeds = {(row["recipe"], row["seed"]) for row in rows()}
    expected = {(f"massive-kept-{path}", str(seed)) for path in PATHS for seed in range(8)}
    expected |= {(f"topk-{path}", str(seed)) for path in PATHS for seed in range(2)}
    assert seeds in (set(), expected), "run the study of config/massive_kept.yaml and `make record`"
