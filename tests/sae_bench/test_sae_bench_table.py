"""The table from planted results: pairs, faults, reasons, and SAEs that SAE Bench does not judge."""

import pandas as pd
import pytest

from atlas.files import write_json
from atlas.sae_bench.refusals import refusal
from atlas.sae_bench.study_table import CORE, Files, write_sae_bench_table

SAE = "tiny/resid_post.3/chat/topk/seed-0"
FORMULA = {"explained_variance": 1.09, "explained_variance_of_the_mean": 1.4, "explained_variance_legacy": 0.7}
OURS = {
    "n_counted": 4000, "explained_variance": 0.7, "cosine": 0.9, "l2_ratio": 0.95, "mean_norm": 100.0,
    "mean_squared_error": 8.0, "l0": 32.0, "fired_share": 0.9, "dense_share": 0.1,
    "sae_bench_formula": FORMULA | {"mse": 0.002},
}  # fmt: skip


def files(folder, **changes) -> Files:
    """Results of one SAE; `changes` are of SAE Bench's core numbers."""
    core = {measure.name: 0.5 for measure in CORE} | {"explained_variance": 1.09, "l2_norm_in": 100.4} | changes
    versions = {"sae-bench": "0.6.0", "sae-probes": "0.4.2"}
    atlas = {"loss_clean": 2.0, "loss_sae": 2.5, "loss_zero": 10.0, "loss_recovered_zero": None, "kl": 0.5}
    reasons = {"atlas_loss_recovered_zero": "the ratio would be noise"}
    found = Files(*(folder / f"{name}.json" for name in ("core", "probes", "ours", "metrics", "probing")))
    write_json(found.core, {"metrics": core, "n_counted": 4000, "versions": versions})
    aucs = {"clicks": {"1": 0.6, "9": 0.7, "dense": 0.9}, "other": {"1": 0.5, "dense": 0.6}}
    seen = {"clicks": 0.4, "other": 0.0}
    write_json(found.probes, {"test_auc": aucs, "seen_in_training": seen, "versions": versions})
    write_json(found.ours, OURS)
    redundancy = {"mean_max_cosine": {"value": 0.2}}
    write_json(found.metrics, {"corpora": {"chat": {"atlas": atlas, "reasons": reasons}}, "redundancy": redundancy})
    ours = {"clicks": {"k": {"1": {"sae": {"auc": 0.65}}}, "dense": {"auc": 0.95}}}
    write_json(found.probing, {"datasets": ours})
    return found


def table(folder, saes) -> pd.DataFrame:
    target = folder / "table.csv"
    write_sae_bench_table("study", saes, dict.fromkeys(saes, "chat"), target)
    return pd.read_csv(target)


def test_numbers_stand_side_by_side_and_faults_are_flagged(tmp_path):
    rows = table(tmp_path, {SAE: files(tmp_path)})
    core = rows[rows.evaluation == "core"].set_index("measure")
    assert list(core.index) == [measure.name for measure in CORE]
    assert core.difference["ce_loss_with_sae"] == pytest.approx(0.5 - 2.5)
    faulty = ["explained_variance", "explained_variance_legacy", "mse"]
    assert sorted(core.index[core.status == "fault"]) == faulty
    assert core.flag["explained_variance"].startswith("1.090 of a whole: impossible")
    assert "gives 1.400 for the mean of these rows, which is 0" in core.flag["explained_variance"]
    assert core.reproduced["explained_variance"] == 1.09
    assert core.atlas["explained_variance"] == 0.7
    assert core.reason["ce_loss_score"] == "not defined for us: the ratio would be noise"
    assert set(core.version) == {"sae-bench 0.6.0"}


def test_probes_stand_beside_ours_or_say_why_not(tmp_path):
    rows = table(tmp_path, {SAE: files(tmp_path)})
    probes = rows[rows.evaluation == "sae-probes"]
    assert probes.atlas.tolist()[0] == 0.65
    assert probes.reason.tolist()[1] == "9 is none of probing.ks"
    assert probes.atlas.tolist()[2] == 0.95
    assert probes.status.tolist() == ["fault"] * 3 + ["ok"] * 2
    assert probes.flag.tolist()[0].startswith("40% of its test prompts are training prompts too")
    assert probes.reason.tolist()[3:] == ["other is none of probing.datasets"] * 2


def test_another_tensor_or_other_tokens_are_no_comparison(tmp_path):
    rows = table(tmp_path, {SAE: files(tmp_path, l2_norm_in=50.0, explained_variance=None)})
    core = rows[rows.evaluation == "core"].set_index("measure")
    assert set(core.status) == {"fault", "suspect"}
    assert "mean norm 50 of its rows, 100 of ours: not the same tensor" in core.flag["l0"]
    assert core.reason["explained_variance"] == "SAE Bench's value is not a number"


def test_what_is_not_judged_has_a_row_with_its_reason(tmp_path):
    rows = table(tmp_path, {SAE: "seed 0 is none of sae_bench.seeds"})
    assert rows.status.tolist() == ["not run"]
    assert rows.reason.tolist() == ["seed 0 is none of sae_bench.seeds"]
    assert rows[["sae_bench", "atlas"]].isna().all().all()


@pytest.mark.parametrize(
    ("hook", "target", "objective", "said"),
    [
        ("resid_post.3", None, "causal_lm", None),
        ("mlp_out.3", None, "causal_lm", None),
        ("mlp_in.3", None, "causal_lm", "mlp_in is no tensor of TransformerLens"),
        ("mlp_in.3", "mlp_out.3", "causal_lm", "a transcoder"),
        ("resid_post.3", None, "embedding", "objective embedding: SAE Bench measures the loss of next tokens"),
    ],
)
def test_refusals(hook, target, objective, said):
    reason = refusal(hook, target, objective)
    assert reason is None if said is None else reason.startswith(said)
