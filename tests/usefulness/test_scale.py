"""Words between floor and ceiling: at the ends, at the threshold, without an end, beside a twin."""

import pytest

from atlas.twins.learnt import NO, UNRESOLVED, UNTESTED, YES
from atlas.usefulness.scale import (
    LABELS,
    LEARNT,
    LOSS,
    MEASURES,
    Number,
    OverTwin,
    Scale,
    halfway,
    untested,
    useful,
    with_useful,
)

FLOOR, CEILING = Number(0.05, (0.04, 0.06)), Number(0.85, (0.8, 0.9))


def near(value: float, reach: float = 0.01) -> Number:
    return Number(value, (value - reach, value + reach))


def test_the_threshold_is_halfway_and_has_the_interval_of_both_ends():
    scale = halfway(near(0.5), FLOOR, CEILING)
    assert scale.threshold.value == pytest.approx(0.45)
    reach = 0.5 * (0.01**2 + 0.05**2) ** 0.5
    assert scale.threshold.interval == pytest.approx((0.45 - reach, 0.45 + reach))
    assert scale.of_the_way == pytest.approx(0.45 / 0.8)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (CEILING, YES),
        (near(0.49), YES),
        (near(0.46), UNRESOLVED),
        (near(0.6, reach=0.3), UNRESOLVED),
        (near(0.41), NO),
        (FLOOR, NO),
        (Number(0.85), UNRESOLVED),  # without an interval nothing is known of its error
    ],
)
def test_words_between_the_ends(value, word):
    assert halfway(value, FLOOR, CEILING).word == word


def test_a_value_at_the_threshold_is_unresolved_whatever_the_uncertain_end():
    """The value's own interval is above the threshold; the ceiling's is so wide that the threshold is not known."""
    vague = Number(0.85, (0.2, 1.0))
    assert halfway(near(0.5), FLOOR, CEILING).word == YES
    assert halfway(near(0.5), FLOOR, vague).word == UNRESOLVED


@pytest.mark.parametrize(
    ("value", "floor", "ceiling", "reason"),
    [
        (None, FLOOR, CEILING, "it has no value"),
        (near(0.5), None, CEILING, "it has no floor"),
        (near(0.5), FLOOR, None, "it has no ceiling"),
        (near(0.5), FLOOR, Number(0.08, (0.05, 0.3)), "its scale has no room: the ceiling is 0.08 [0.05, 0.3]"),
        (near(0.5), CEILING, FLOOR, "its scale has no room"),
        (near(0.5), Number(0.05), CEILING, "its scale has no room: the ceiling is 0.85 [0.8, 0.9], the floor 0.05;"),
    ],
)
def test_without_room_between_the_ends_nothing_is_tested(value, floor, ceiling, reason):
    scale = halfway(value, floor, ceiling)
    assert scale.word == UNTESTED
    assert scale.reason.startswith(reason)


@pytest.mark.parametrize(
    ("better_by", "word"), [(near(0.1), YES), (near(0.005), UNRESOLVED), (Number(0.1), UNRESOLVED), (near(-0.1), NO)]
)
def test_an_sae_must_be_better_than_its_best_twin_too(better_by, word):
    assert halfway(near(0.7), FLOOR, CEILING, OverTwin("near_decoder", better_by)).word == word
    # Below the threshold a twin does not help.
    assert halfway(near(0.2), FLOOR, CEILING, OverTwin("near_decoder", better_by)).word == NO


def test_conventions_have_no_error():
    scale = Scale(near(0.95), Number.exactly(0), Number.exactly(1), Number.exactly(0.9))
    assert scale.word == YES
    assert scale.value.less(scale.threshold).interval == pytest.approx((0.04, 0.06))


def words(**given: str) -> dict[str, str]:
    return dict.fromkeys(MEASURES, UNTESTED) | given


def test_one_word_for_all():
    assert useful(dict.fromkeys(MEASURES, YES)) == YES
    assert useful(words(loss=YES, labels=YES)) == YES
    assert useful(words(loss=YES, labels=YES, coherence=UNRESOLVED)) == UNRESOLVED
    assert useful(words(loss=YES, labels=YES, coherence=UNRESOLVED, stability=NO)) == NO
    assert useful(words(loss=NO)) == NO
    # Reconstruction alone, or latents without the loss, say too little for a yes.
    assert useful(words(loss=YES, learnt=YES)) == UNTESTED
    assert useful(words(labels=YES, coherence=YES)) == UNTESTED


def test_a_yes_is_shown_with_what_was_not_tested():
    given = words(loss=YES, labels=YES)
    missing = untested(given)
    assert missing == [name for name in MEASURES if name not in (LOSS, LABELS)]
    assert with_useful("good", YES, missing) == "good · useful yes (coherence, stability, learnt untested)"
    assert with_useful("good", YES, []) == "good · useful yes"
    assert with_useful("dead", NO, [LEARNT]) == "dead · useful no"
