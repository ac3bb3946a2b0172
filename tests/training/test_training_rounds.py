"""The order in which windows of a group are filled: every SAE gets to its end, and no window is filled twice."""

import hypothesis.strategies as st
from hypothesis import given

from atlas.activations.plan import Plan, Window
from atlas.config.mixes import Mix
from atlas.training.rounds import WindowUse, most_at_hand, needed, next_window, order_of_windows

SHARDS = {"chat": [100] * 6, "news": [100, 100, 100, 40]}


def mix(*weights: float) -> Mix:
    ends = [(number + 1) / len(weights) for number in range(len(weights))]
    return Mix(
        phases=[{"until": end, "weights": {"chat": w, "news": 1 - w}} for end, w in zip(ends, weights, strict=True)]
    )


@st.composite
def passages(draw) -> list[WindowUse]:
    shares = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
    found = []
    for _ in range(draw(st.integers(1, 4))):
        steps, seed = draw(st.integers(1, 60)), draw(st.integers(0, 9))
        plan = Plan(mix(*draw(st.lists(shares, min_size=1, max_size=3))), seed, steps, SHARDS, draw(st.just(2)))
        found.append(WindowUse(plan.use, steps))
    return found


@given(passages())
def test_all_get_to_their_end_and_no_window_is_filled_twice(every):
    order, at_hand, filled, steps = order_of_windows(every), set(), [], [0] * len(every)
    while (window := next_window(order, every, steps, at_hand)) is not None:
        filled.append(window)
        at_hand.add(window)
        for number, passage in enumerate(every):
            reached = passage.reach(steps[number], at_hand)
            for each, (first, end) in passage.use.items():
                if each not in at_hand:
                    assert end <= steps[number] or reached <= max(first, steps[number])
            steps[number] = reached
        at_hand = {each for each in at_hand if needed(each, every, steps)}
    assert steps == [passage.steps for passage in every]
    assert len(set(filled)) == len(filled) == len(order)


def test_of_one_corpus_one_window_is_at_hand_at_a_time():
    every = [
        WindowUse(Plan(mix(1.0), seed, steps, SHARDS, 2).use, steps) for seed, steps in ((0, 50), (1, 31), (2, 77))
    ]
    sizes = {window: 10 + window.number for window in order_of_windows(every)}
    assert most_at_hand(every, sizes, [0, 0, 0]) == 12
    assert most_at_hand(every, sizes, [50, 31, 77]) == 0


def test_an_sae_that_is_ahead_waits_for_no_window_that_it_has_passed():
    early, late = Window("chat", 0, 0, 1), Window("chat", 1, 1, 2)
    every = [WindowUse({early: (0, 5), late: (5, 10)}, 10)]
    assert next_window(order_of_windows(every), every, [7], set()) == late
    assert every[0].reach(3, {late}) == 3
    assert every[0].reach(7, {late}) == 10
