"""What is wrong is said before SAE Bench is started."""

import sys
from pathlib import Path

import pytest
from trained import random_sae, write_trained

from atlas.export.formats import export_sae
from atlas.files import write_json
from atlas.sae_bench.launch import Bench, Results, SaeBenchError, even_batch, run_probes


def bench(folder, d_model=24, name="tiny", python=Path(sys.executable)) -> Bench:
    write_json(folder / "model" / "identity.json", {"name": name, "d_model": d_model, "weights_sha256": "b" * 64})
    export_sae(write_trained(folder / "sae", random_sae()), "saelens", folder / "export")
    return Bench(folder / "model", folder / "export", python)


def run(folder, bench) -> None:
    run_probes(bench, ["87_glue_cola"], [1], Results(folder / "theirs.json", folder / "run.json"))


def test_missing_environment_names_the_rule_that_makes_it(tmp_path):
    with pytest.raises(SaeBenchError, match=r"no environment at .*results/environments/sae_bench/ready"):
        run(tmp_path, bench(tmp_path, python=tmp_path / "bin" / "python"))


def test_sae_of_another_width_or_model_is_refused(tmp_path):
    with pytest.raises(SaeBenchError, match="reads rows of width 24, but 'tiny' has d_model 32"):
        run(tmp_path, bench(tmp_path, d_model=32))
    with pytest.raises(SaeBenchError, match="an SAE of model 'tiny', expected a saelens export of one of 'other'"):
        run(tmp_path / "b", bench(tmp_path / "b", name="other"))


def test_failure_shows_the_end_of_its_output_and_leaves_nothing(tmp_path):
    """Our own Python has no sae_bench."""
    with pytest.raises(SaeBenchError, match=r"(?s)SAE Bench failed on .*status 1.*No module named 'sae_bench'"):
        run(tmp_path, bench(tmp_path))
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(("contexts", "most", "expected"), [(16, 4, 4), (15, 4, 3), (7, 4, 1), (3, 8, 3)])
def test_batches_leave_no_rest(contexts, most, expected):
    assert even_batch(contexts, most) == expected
