"""Batches from windows: pure functions of the step, from the shards of the window, as well mixed as it is."""

import numpy as np
import pytest
import torch
from activations.shards import make_shard

from atlas.activations.blocks import eligible_rows
from atlas.activations.mixing import measure_mixing
from atlas.activations.plan import Plan, windows_of
from atlas.activations.store import open_shards
from atlas.activations.stream import BatchStream
from atlas.activations.window import WindowShards
from atlas.activations.windowed import Windowed
from atlas.config.mixes import Mix
from atlas.errors import StoreError
from atlas.massive import MASSIVE_FACTOR

HOOK = "resid_post.0"
ONE = Mix(phases=[{"until": 1.0, "weights": {"chat": 1.0}}])
CURRICULUM = Mix(
    phases=[
        {"until": 0.25, "weights": {"chat": 1.0}},
        {"until": 1.0, "weights": {"chat": 0.7, "finance": 0.3}},
    ]
)
CONTEXTS = {"chat": [40, 40, 40, 40, 20], "finance": [30, 30, 30]}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    found = {}
    for name, sizes in CONTEXTS.items():
        paths, first = [folder / f"{name}{number}.h5" for number in range(len(sizes))], 0
        for number, (path, contexts) in enumerate(zip(paths, sizes, strict=True)):
            documents = np.random.default_rng(number).permutation(np.repeat(np.arange(first, first + contexts), 32))
            first += contexts
            seed = number + 100 * (name == "finance")
            make_shard(path, contexts, seed, documents, n_shards=len(sizes), shard=number, corpus=name)
        found[name] = open_shards(paths)
    return found


def stream(shards, mix=CURRICULUM, seed=0, steps=60, window_shards=2):
    windowed = Windowed.of(shards, {name: group[:1] for name, group in shards.items()}, window_shards)
    return BatchStream(shards, HOOK, mix, seed, batch_size=128, steps=steps, windowed=windowed)


def windows_at(s, step) -> dict[str, set[int]]:
    """Numbers of the shards that a batch really comes from."""
    found: dict[str, set[int]] = {}
    for path, _ in s.where(step):
        found.setdefault(path.stem[:-1], set()).add(int(path.stem[-1]))
    return found


def test_batch_is_a_pure_function_of_seed_and_step(shards):
    one, two = stream(shards), stream(shards)
    forward = [one.batch(step).rows for step in range(60)]
    backward = [two.batch(step).rows for step in reversed(range(60))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert one.identity == two.identity != stream(shards, window_shards=3).identity
    assert not torch.equal(stream(shards, seed=1).batch(0).rows, forward[0])


@pytest.mark.parametrize("window_shards", [1, 2, 3])
def test_a_step_draws_from_one_window_of_each_corpus_and_windows_rise(shards, window_shards):
    s, before = stream(shards, window_shards=window_shards), {"chat": 0, "finance": 0}
    seen = {name: set() for name in before}
    for step in range(60):
        for name, numbers in windows_at(s, step).items():
            (window,) = {number // window_shards for number in numbers}
            assert window >= before[name]
            before[name] = window
            seen[name] |= numbers
            first, end = s.plan.use[s.plan.windows[name][window]]
            assert first <= step < end
    assert seen == {name: set(range(len(sizes))) for name, sizes in CONTEXTS.items()}


@pytest.mark.parametrize("steps", [60, 400])
def test_each_window_serves_its_share_of_the_corpus(shards, steps):
    plan = stream(shards, steps=steps).plan
    for name, sizes in CONTEXTS.items():
        served = dict.fromkeys(plan.windows[name], 0)
        for step in range(steps):
            for window, rank in plan.blocks(step):
                if window.corpus == name:
                    assert rank == served[window]
                    served[window] += 1
        for window, blocks in served.items():
            share = sum(sizes[window.first : window.stop]) / sum(sizes)
            assert blocks == pytest.approx(share * sum(served.values()), abs=8)


def test_which_corpora_are_drawn_is_that_of_the_whole_plan(shards):
    whole = BatchStream(shards, HOOK, CURRICULUM, 0, batch_size=128, steps=60)
    s = stream(shards)
    assert [s.batch(step).corpora for step in range(60)] == [whole.batch(step).corpora for step in range(60)]
    assert s.drawn_shares() == whole.drawn_shares()


def test_a_step_needs_the_shards_of_its_window_alone(shards):
    held = {name: WindowShards(name) for name in shards}
    windowed = Windowed.of(shards, {name: group[:1] for name, group in shards.items()}, 2)
    s = BatchStream(held, HOOK, CURRICULUM, 0, batch_size=128, steps=60, windowed=windowed)
    s.end = 1
    with pytest.raises(StoreError, match=r"shard 0 of corpus 'chat' is in no window at hand, which has none"):
        s.batch(0)
    for number in (0, 1):
        held["chat"].put(number, shards["chat"][number])
    assert torch.equal(s.batch(0).rows, stream(shards).batch(0).rows)
    assert s.statistics().n_rows is None


def test_rows_of_a_pass_over_a_window_are_drawn_once(shards):
    s = stream(shards, ONE, steps=40)
    first, end = s.plan.use[s.plan.windows["chat"][0]]
    drawn = [place for step in range(first, end) for place in s.where(step)]
    n_rows, blocks = s.account.windows["chat/0"]
    assert len(set(drawn[: blocks * 16])) == blocks * 16 <= n_rows


def test_statistics_come_from_the_first_part(shards):
    part = BatchStream({"chat": shards["chat"][:1]}, HOOK, ONE, 0, batch_size=128, steps=4)
    s = stream(shards, ONE)
    assert s.statistics().mean_square_norm == part.statistics().mean_square_norm
    assert s.statistics().median_norm == part.statistics().median_norm
    s.epochs()
    limit = MASSIVE_FACTOR * part.statistics().median_norm
    assert s.statistics().n_rows == sum(len(eligible_rows(shard, {HOOK: limit})) for shard in shards["chat"])


def test_mixing_of_windows_is_measured_against_the_whole_corpus(shards):
    """In windows of one shard a batch has at most the 40 documents of that shard."""
    narrow, wide = (measure_mixing(stream(shards, ONE, window_shards=n)) for n in (1, 5))
    assert narrow.uniform_documents == wide.uniform_documents > 60
    assert narrow.effective_documents < 40 < wide.effective_documents


def test_plans_of_billions_of_rows_take_no_time():
    plan = Plan(ONE, 0, 1000, {"chat": [2**22] * 1000}, 10)
    assert len(plan.windows["chat"]) == 100
    assert sorted(first for first, _ in plan.use.values()) == [10 * number for number in range(100)]


def test_windows_cut_a_corpus_without_gap():
    found = windows_of("chat", 5, 2)
    assert [list(window.shards) for window in found] == [[0, 1], [2, 3], [4]]
    assert [list(window.shards) for window in windows_of("chat", 5, None)] == [[0, 1, 2, 3, 4]]
