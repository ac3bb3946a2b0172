"""The cost model grows with what it is about, and covers what was measured."""

import pytest

from atlas.studies import cost

SMALL = cost.ModelSize(n_layers=30, d_model=576, bytes_per_value=2)
LARGE = cost.ModelSize(n_layers=32, d_model=4096, bytes_per_value=2)


def test_weights_and_forward_pass_follow_the_rule_of_thumb():
    assert LARGE.weights == 12 * 32 * 4096**2
    assert LARGE.forward(10) == 20 * LARGE.weights
    assert (SMALL.is_large, LARGE.is_large) == (False, True)


@pytest.mark.parametrize("attempt", [2, 3])
def test_a_later_attempt_gets_proportionally_more(attempt):
    assert cost.minutes(1e15, cost.CPU_FLOPS, 1e9, attempt) == attempt * cost.minutes(1e15, cost.CPU_FLOPS, 1e9, 1)
    assert cost.model_memory_mb(LARGE, attempt) == pytest.approx(attempt * cost.model_memory_mb(LARGE, 1), abs=attempt)


def test_time_counts_work_and_moved_bytes_and_is_never_less_than_ten_minutes():
    assert cost.minutes(0, 1.0, 0, 1) == 10
    hour = cost.minutes(3600 * cost.GPU_FLOPS, cost.GPU_FLOPS, 0, 1)
    assert hour == 60 * cost.SAFETY + cost.START_SECONDS / 60
    assert cost.minutes(3600 * cost.GPU_FLOPS, cost.GPU_FLOPS, 3600 * cost.DISK_BYTES, 1) == 2 * hour - 2


def test_stored_rows_and_dictionaries():
    assert cost.store_bytes(1000, 4096, 4) == 1000 * 4 * (2 * 4096 + 24)
    assert cost.dictionary_values(400, 576) == 460_800
    assert cost.megabytes(16 * cost.dictionary_values(131_072, 4096), 1) > 16_000


def test_tokens_of_a_corpus_are_not_held_while_they_are_packed():
    """Measured with benchmarks/packing.py: 33.5 s and 104 MB for 32 million tokens, 100 MB for 4 million."""
    assert 104 < cost.packing_memory_mb(1) - cost.BASE_MB < 4 * 104
    assert 33.5 < 60 * cost.packing_minutes(32_000_000, 1) < 40 * 33.5
    assert cost.packing_memory_mb(3) == 3 * cost.packing_memory_mb(1)


def test_a_small_dictionary_of_a_large_model_is_planned_for_the_gpu_that_it_asks_for():
    on_core, on_gpu = (cost.training_minutes(400, 4096, 8192, 4096, gpu, 1) for gpu in (False, True))
    read = cost.store_bytes(8192 * 4096, 4096, 1) / cost.DISK_BYTES / 60
    assert cost.SAFETY * read < on_gpu < 1.2 * cost.SAFETY * read
    assert on_core > 10 * on_gpu
    # However small, a step has its kernels to start.
    assert cost.training_minutes(64, 32, 100_000, 8, True, 1) >= 100_000 * cost.GPU_STEP_SECONDS / 60


def test_grants_of_the_sweep_cover_what_its_jobs_took():
    """Measured: a harvest of 98,304 tokens took 182 s and 1,249 MB, a training of 1,200 latents 89 s."""
    harvest = cost.minutes(SMALL.forward(98_304), SMALL.flops, cost.store_bytes(98_304, 576, 4), 1)
    assert 182 < 60 * harvest < 30 * 182
    assert 1249 < cost.model_memory_mb(SMALL, 1) < 4 * 1249
    training = cost.minutes(cost.training_flop(1200, 576, 1500 * 1024), cost.CPU_FLOPS, 0, 1)
    assert 89 < 60 * training < 40 * 89


@pytest.mark.parametrize("n_latents", [16_384, 131_072])
def test_memory_for_a_dictionary_grows_with_its_weights_alone(n_latents):
    """Neither rows times latents nor latents times latents is held at once."""
    values, size = cost.dictionary_values(n_latents, 576), cost.ModelSize(30, 576, 2)
    small = cost.dictionary_values(400, 576)
    for bytes_a_weight, asked in {
        12: cost.fetching_memory_mb(values, 1) - cost.fetching_memory_mb(small, 1),
        16: cost.publishing_memory_mb(values, 576, 4, 1) - cost.publishing_memory_mb(small, 576, 4, 1),
        8: cost.evaluation_memory_mb(size, values, 49_152, 1) - cost.evaluation_memory_mb(size, small, 49_152, 1),
    }.items():
        assert asked == pytest.approx(bytes_a_weight * (values - small) / 1e6, abs=2)
