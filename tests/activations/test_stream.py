import numpy as np
import pytest
import torch
from shards import make_shard

from atlas.activations.sampling import sample_rows
from atlas.activations.store import open_shards
from atlas.activations.stream import BatchStream
from atlas.config.mixes import Mix
from atlas.errors import StoreError

HOOK = "resid_post.0"
ONE = Mix(phases=[{"until": 1.0, "weights": {"chat": 1.0}}])
CURRICULUM = Mix(
    phases=[
        {"until": 0.25, "weights": {"chat": 1.0}},
        {"until": 1.0, "weights": {"chat": 0.7, "finance": 0.3}},
    ]
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for number in range(2):
        make_shard(folder / f"chat{number}.h5", seed=number, n_shards=2, shard=number)
    make_shard(folder / "finance.h5", seed=9, corpus="finance", corpus_fingerprint="g", n_contexts=60)
    return {
        "chat": open_shards([folder / "chat0.h5", folder / "chat1.h5"]),
        "finance": open_shards([folder / "finance.h5"]),
    }


def stream(shards, mix=ONE, seed=0, steps=40, **options):
    return BatchStream(shards, HOOK, mix, seed, batch_size=128, steps=steps, **options)


def test_batch_is_a_pure_function_of_seed_and_step(shards):
    forward, backward = stream(shards, CURRICULUM), stream(shards, CURRICULUM)
    first = [forward.batch(step) for step in range(40)]
    again = [backward.batch(step) for step in reversed(range(40))][::-1]
    assert all(torch.equal(a.rows, b.rows) and a.corpora == b.corpora for a, b in zip(first, again, strict=True))
    other = stream(shards, CURRICULUM, seed=1)
    assert not torch.equal(first[0].rows, other.batch(0).rows)
    assert other.identity != forward.identity == backward.identity


def test_an_epoch_visits_every_row_at_most_once_and_nearly_all(shards):
    s = stream(shards, steps=1000)
    rows_of_an_epoch = s.account.windows["chat/0"][1] * 16
    steps = rows_of_an_epoch // 128
    drawn = torch.cat([s.batch(step).rows for step in range(steps)])
    assert len(torch.unique(drawn, dim=0)) == len(drawn) == steps * 128
    assert len(drawn) > 0.97 * s.statistics().n_rows
    assert s.epochs()["chat"] == pytest.approx(1000 * 128 / rows_of_an_epoch)


def test_second_epoch_has_another_order_and_reaches_the_left_over_rows(shards):
    s = stream(shards, steps=400)
    steps = s.account.windows["chat/0"][1] // 8
    one, two = (torch.cat([s.batch(e * steps + i).rows for i in range(steps)]) for e in range(2))
    assert not torch.equal(one, two)
    everything = torch.cat([s.batch(step).rows for step in range(400)])
    assert len(torch.unique(everything, dim=0)) == s.statistics().n_rows


def test_massive_and_uncounted_rows_are_never_drawn(shards):
    drawn = torch.cat([stream(shards).batch(step).rows for step in range(40)]).float().norm(dim=1)
    assert drawn.max() < 50
    kept = torch.cat([stream(shards, exclude_massive=False).batch(step).rows for step in range(40)]).float().norm(dim=1)
    assert kept.max() > 200
    counted = sum(int(s.counted.sum()) for s in shards["chat"])
    assert stream(shards, exclude_massive=False).statistics().n_rows == counted


@pytest.mark.parametrize("steps", [40, 400])
def test_drawn_shares_follow_the_schedule(shards, steps):
    s = stream(shards, CURRICULUM, steps=steps)
    blocks = steps * 8
    expected = 0.75 * 0.3
    assert s.drawn_shares()["finance"] == pytest.approx(expected, abs=4 / blocks)
    assert s.drawn_shares(steps // 4)["finance"] == 0.0
    counted = sum(s.batch(step).corpora["finance"] for step in range(40)) / (40 * 128)
    assert counted == pytest.approx(s.drawn_shares(40)["finance"])
    assert sum(s.drawn_shares().values()) == pytest.approx(1.0)


def test_drawn_shares_follow_the_schedule_at_every_point(shards):
    """Never more than four blocks off what the phases ask for so far, out of 3200."""
    s = stream(shards, CURRICULUM, steps=400)
    for steps in range(1, 401):
        wanted = 0.3 * max(0, steps - 100)
        assert s.drawn_shares(steps)["finance"] * steps == pytest.approx(wanted, abs=4 / 8), steps


def test_bits_of_a_batch_are_those_on_disk_at_the_places_they_come_from(shards):
    """Against the slow way: row by row, through `where`; also when steps are asked for in any order."""
    s = stream(shards, CURRICULUM, exclude_massive=False)
    by_path = {shard.path: shard for group in shards.values() for shard in group}
    for step in (39, 3, 4, 5, 3, 38):
        slow = torch.cat([by_path[path].read_rows(HOOK, row, row + 1) for path, row in s.where(step)])
        assert torch.equal(s.batch(step).rows.view(torch.uint16), slow.view(torch.uint16))


def test_shards_that_do_not_fit_the_mix_are_refused_before_anything_is_read(shards, tmp_path):
    with pytest.raises(StoreError, match=r"draws from 'finance', but there are only shards of 'chat'"):
        stream({"chat": shards["chat"]}, CURRICULUM)
    with pytest.raises(StoreError, match=r"has no hook 'resid_post\.7', only resid_post\.0, resid_post\.1"):
        BatchStream(shards, "resid_post.7", ONE, 0, batch_size=128, steps=4)
    make_shard(tmp_path / "wide.h5", hooks={HOOK: 48}, corpus="finance")
    wide = shards | {"finance": open_shards([tmp_path / "wide.h5"])}
    with pytest.raises(StoreError, match=r"wide\.h5: rows at resid_post\.0 have d_model 48 .*but 16 .*chat0\.h5"):
        stream(wide, CURRICULUM)


def test_damaged_block_is_named_by_the_batch_that_would_hold_it(tmp_path):
    make_shard(tmp_path / "s.h5")
    whole = open_shards([tmp_path / "s.h5"])
    step = next(step for step in range(40) if 1500 in [row for _, row in stream({"chat": whole}).where(step)])
    content = bytearray((tmp_path / "s.h5").read_bytes())
    row = whole[0].read_rows(HOOK, 1500, 1501).view(torch.uint16).numpy().tobytes()
    assert content.count(row) == 1
    content[content.index(row)] ^= 1
    (tmp_path / "s.h5").write_bytes(content)
    with pytest.raises(StoreError, match=r"rows 1024 to 2047 of resid_post\.0 differ from their checksum"):
        stream({"chat": open_shards([tmp_path / "s.h5"])}).batch(step)


def test_rows_belong_to_the_corpus_they_are_said_to(shards):
    s = stream(shards, CURRICULUM)
    finance = {tuple(row.tolist()) for row in shards["finance"][0].read_rows(HOOK, 0, shards["finance"][0].n_rows)}
    batch = s.batch(39)
    assert sum(tuple(row.tolist()) in finance for row in batch.rows) == batch.corpora["finance"] > 0


def test_every_row_of_a_batch_can_be_traced_to_its_file(shards):
    s = stream(shards, CURRICULUM)
    by_path = {shard.path: shard for group in shards.values() for shard in group}
    for step in (0, 17, 39):
        places = s.where(step)
        read = torch.cat([by_path[path].read_rows(HOOK, row, row + 1) for path, row in places])
        assert torch.equal(read, s.batch(step).rows)


def test_statistics_are_those_of_the_drawn_rows(shards):
    s = stream(shards, steps=400)
    drawn = torch.cat([s.batch(step).rows for step in range(400)]).double()
    statistics = s.statistics()
    assert statistics.mean_square_norm == pytest.approx(float(drawn.square().sum(1).mean()), rel=0.02)
    assert torch.allclose(statistics.mean, drawn.mean(0), atol=0.05)


def test_corpus_too_small_for_a_block_is_named(shards):
    with pytest.raises(StoreError, match=r"corpus 'finance' has .* fewer than a block of 12500.*raise train_tokens"):
        mix = Mix(phases=[{"until": 1.0, "weights": {"finance": 1.0}}])
        BatchStream(shards, HOOK, mix, 0, batch_size=100_000, steps=4)


def test_sample_rows_is_fixed_and_within_the_limit(shards):
    one, two = (sample_rows(shards["chat"], HOOK, 200, limit=50.0) for _ in range(2))
    assert torch.equal(one, two)
    assert len(one) == 200
    assert one.float().norm(dim=1).max() <= 50
    assert np.isclose(len(torch.unique(one, dim=0)), 200)
