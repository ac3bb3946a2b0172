"""Verdicts for readers: each rule and each gap is said in words, and nothing is said that the table has not."""

import pandas as pd
import pytest

from atlas.config.study import Taxonomy
from atlas.evaluation.outcome import VerdictInputs, judge
from atlas.studies.table import because
from atlas.studies.verdicts import MEANINGS, RULES, UNKNOWN, write_verdicts

COPIES = "redundancy_share_max_cosine_above_07"
SICK = {
    "failed": [VerdictInputs(0.01), VerdictInputs(float("nan")), VerdictInputs(0.7, l0=40, k=32)],
    "dead": [VerdictInputs(0.7, dead=0.95)],
    "duplicated": [VerdictInputs(0.7, copies=0.9)],
    "noisy": [VerdictInputs(0.7, dense=0.9)],
    "deceptively-good": [VerdictInputs(0.99, dead=0.6), VerdictInputs(0.99, copies=0.2)],
    "unhealthy": [VerdictInputs(0.7, dead=0.4), VerdictInputs(0.7, copies=0.2)],
    "under-capacity": [VerdictInputs(0.4, dead=0.0), VerdictInputs(0.7, recovered=0.5, dead=0.0)],
}


def row(corpus: str, role: str, **changes) -> dict:
    values = {"study": "s", "model": "m", "hook": "resid_post.1", "target_hook": None, "mix": "a_b", "recipe": "topk"}
    values |= {"seed": 0, "shift": None, "architecture": "topk", "n_latents": 1200, "k": 32, "corpus": corpus}
    values |= {"role": role, "outcome": "good", "outcome_because": "", "outcome_unknown": "", "learnt": "untested"}
    values |= {"guide_outcome": "good", "random_outcome": "under-capacity", "atlas_l0": 32.0, "atlas_dead_pct": 1.25}
    values |= {"atlas_dead_tokens": 16_366, "atlas_dense_pct": 3.0, "atlas_delta_loss_regular": 0.25}
    values |= {"atlas_explained_variance_regular": 0.7, "random_explained_variance_regular": 0.15}
    values |= {f"atlas_explained_variance_regular_interval_{end}": 0.7 + d for end, d in (("low", -0.1), ("high", 0.1))}
    return (
        values
        | {"atlas_loss_recovered_mean_regular": None, f"{COPIES}_value": 0.2, f"{COPIES}_null_mean": 0.1}
        | changes
    )


def page(tmp_path, *rows: dict) -> str:
    pd.DataFrame(rows).to_csv(tmp_path / "s.csv", index=False)
    write_verdicts("s", tmp_path / "s.csv", 1_000_000, tmp_path / "s.md")
    return (tmp_path / "s.md").read_text()


def cells(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_corpora_of_an_sae_stand_side_by_side(tmp_path):
    text = page(tmp_path, row("chat", "in_sample"), row("news", "oos", outcome="unhealthy"))
    assert cells(text, "") == ["chat (in-sample)", "news (out-of-sample)"]
    assert cells(text, "**verdict**") == ["**good**", "**unhealthy**"]
    assert cells(text, "because") == ["no rule fired"] * 2
    assert cells(text, "explained variance, massive activations left out") == ["0.700 [0.600, 0.800]"] * 2
    assert cells(text, "share of the loss recovered over the mean row") == ["–"] * 2
    assert cells(text, "copies; in a random dictionary") == ["20.0 %; 10.0 %"] * 2
    assert "good 1, unhealthy 1" in text and "is called dead from" not in text
    for word in ("good", "unhealthy", "under-capacity"):
        assert f"- *{word}*: {MEANINGS[word]}" in text, "the random dictionary's verdict is explained too"
    assert "*noisy*" not in text and "a\\_b" in text


def test_what_is_not_known_is_named_with_the_way_to_know_it(tmp_path):
    text = page(tmp_path, row("chat", "in_sample", outcome_unknown="dead; redundancy"))
    assert cells(text, "not known") == ["dead latents, copies"]
    assert "A latent is called dead from 1,000,000 tokens on" in text


def test_published_saes_have_no_seed_and_no_mix(tmp_path):
    text = page(tmp_path, row("chat", "in_sample", mix=None, seed=None, recipe="theirs"))
    assert "## theirs (published) on m resid_post.1" in text


@pytest.mark.parametrize("verdict", SICK)
def test_every_rule_of_every_verdict_is_said_in_words(verdict, tmp_path):
    for evidence in SICK[verdict]:
        outcome = judge(evidence, Taxonomy())
        assert outcome["verdict"] == verdict
        text = page(tmp_path, row("chat", "in_sample", outcome=verdict, outcome_because=because(outcome)))
        (said,) = cells(text, "because")
        assert len(said.split("; ")) == len(outcome["rules"])
        assert not any(f"{rule['rule']}:" in said for rule in outcome["rules"])
        assert set(outcome["unknown"]) <= set(UNKNOWN)


def test_every_limit_of_the_taxonomy_has_words():
    limits = set(Taxonomy.model_fields) - {"duplicated_above", "deceptive_absorption_above"}  # of the guide's protocol
    assert limits <= set(RULES)
