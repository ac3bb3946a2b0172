"""Bound what labelling asks of a language model from the settings alone, before anything is read or paid.

At most, because latents with fewer examples need fewer prompts, equal requests are asked once, and what is kept from
before is not asked again: a job logs what is left of it.
"""

from dataclasses import dataclass
from math import ceil

from atlas.config.autointerp import Autointerp

DICTIONARIES = 2  # the SAE's and the random one beside it
# Tokens of a prompt besides its windows, and windows that it shows; a label's windows come with highlights and words.
_EXPLAIN_WINDOWS, _EXPLAIN_EXTRA, _LABEL = 10, 250, 32
_DELPHI_EXTRA, _DELPHI_LABEL = 1600, 200
_JUDGE_EXTRA = {"detection": 90, "fuzzing": 90, "delphi_detection": 700, "delphi_fuzzing": 900}
_INTRUDER_EXTRA = 120
_HIGHLIGHTS = 2  # a highlighted window is at most this times as long, for a mark is a token too


@dataclass(frozen=True)
class Cost:
    """Requests, and tokens of prompts and replies together; all at most."""

    requests: int = 0
    tokens: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.requests + other.requests, self.tokens + other.tokens)

    def __str__(self) -> str:
        if not self.requests:
            return "asks no language model"
        return (
            f"asks a language model at most {self.requests:,} times, for about {self.tokens / 1e6:,.2f} million tokens"
        )


def cost(settings: Autointerp, n_latents: int) -> Cost:
    """Of one SAE and its random dictionary."""
    chosen = n_latents if settings.sample is None else min(settings.sample, n_latents)
    total = Cost()
    for explainer in settings.explainers:
        total += _times(_explaining(explainer, settings), DICTIONARIES * chosen * len(settings.seeds))
        for scorer in settings.label_scorers:
            total += _times(_judging(scorer, settings), DICTIONARIES * chosen * _labels(settings, chosen))
    if "intruder" in settings.scorers:
        total += _times(_intruders(settings), DICTIONARIES * chosen)
    thought = 0 if settings.client is None else settings.client.reasoning_tokens
    return Cost(total.requests, total.tokens + total.requests * thought)


def _times(each: Cost, count: int) -> Cost:
    return Cost(each.requests * count, each.tokens * count)


def _explaining(explainer: str, settings: Autointerp) -> Cost:
    if explainer == "max_activation":
        shown = min(_EXPLAIN_WINDOWS, settings.train_examples) * settings.window_tokens
        return Cost(1, _HIGHLIGHTS * shown + _EXPLAIN_EXTRA + _LABEL)
    if explainer == "delphi_default":
        shown = settings.train_examples * settings.window_tokens
        return Cost(1, _HIGHLIGHTS * shown + _DELPHI_EXTRA + _DELPHI_LABEL)
    return Cost()


def _judging(scorer: str, settings: Autointerp) -> Cost:
    """Of one label: all windows of its test, some in each prompt."""
    if scorer not in _JUDGE_EXTRA:
        return Cost()
    windows = settings.test_examples + settings.random_negatives + settings.hard_negatives
    prompts = ceil(windows / settings.per_prompt)
    longer = _HIGHLIGHTS if scorer.endswith("fuzzing") else 1
    reply = 4 * settings.per_prompt + 8
    return Cost(prompts, longer * windows * settings.window_tokens + prompts * (_JUDGE_EXTRA[scorer] + reply))


def _intruders(settings: Autointerp) -> Cost:
    """Of one latent: trials with both kinds of negatives."""
    whole = settings.test_examples // settings.intruder_windows
    trials = min(whole, settings.random_negatives) + min(whole, settings.hard_negatives)
    shown = _HIGHLIGHTS * settings.intruder_windows * settings.window_tokens
    return Cost(trials, trials * (shown + _INTRUDER_EXTRA))


def _labels(settings: Autointerp, chosen: int) -> int:
    """Labels that one latent's windows are tested with: its own, those of others, the blind one."""
    return 1 + max(1, min(settings.swaps, chosen - 1)) + 1
