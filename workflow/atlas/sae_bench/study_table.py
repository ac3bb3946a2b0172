"""results/<study>_sae_bench.csv: SAE Bench's numbers beside ours, with what is known to be wrong with them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.files import read_json
from atlas.studies.rows import frame_of, identity
from atlas.tables import write_csv


@dataclass(frozen=True)
class Files:
    """Of one SAE: SAE Bench's runs, our numbers on the same tokens, our metrics and our probes."""

    core: Path
    probes: Path
    ours: Path
    metrics: Path
    probing: Path


@dataclass(frozen=True)
class BenchMeasure:
    """A number of SAE Bench and ours: `fault` is what is wrong with its definition, `differs` what is different."""

    name: str
    ours: str
    fault: str | None = None
    differs: str | None = None


_ABLATED = "it ablates special tokens too, and counts predictions of them"
_COUNTED = "it counts predictions of special tokens too; its model runs in float32"
_RUNS = "its model runs in float32"
CORE = (
    BenchMeasure("ce_loss_without_sae", "loss_clean", differs=_COUNTED),
    BenchMeasure("ce_loss_with_sae", "loss_sae", differs=_COUNTED),
    BenchMeasure("ce_loss_with_ablation", "loss_zero", differs=_ABLATED),
    BenchMeasure("ce_loss_score", "loss_recovered_zero", differs=_ABLATED),
    BenchMeasure("kl_div_with_sae", "kl", differs=_COUNTED),
    BenchMeasure(
        "explained_variance",
        "explained_variance",
        fault="subtracts a squared mean of x² where the squared mean of x belongs: changes with the scale of the rows, "
        "does not give 0 for the mean predictor, and can pass 1",
    ),
    BenchMeasure(
        "explained_variance_legacy",
        "explained_variance",
        fault="a mean over rows of each row's own ratio: a row near the mean counts as much as a row far from it",
    ),
    BenchMeasure(
        "mse", "mean_squared_error", fault="divided by the rows of a batch once more: halves when batches double"
    ),
    BenchMeasure("cossim", "cosine", differs=_RUNS),
    BenchMeasure("l2_norm_in", "mean_norm", differs=_RUNS),
    BenchMeasure("l2_ratio", "l2_ratio", differs=_RUNS),
    BenchMeasure("l0", "l0", differs=_RUNS),
    BenchMeasure("frac_alive", "fired_share", differs="alive means fired on these few tokens; see dead_status in ours"),
    BenchMeasure("freq_over_10_percent", "dense_share", differs=_RUNS),
    BenchMeasure("average_max_decoder_cosine_sim", "mean_max_cosine"),
)
# A mean norm further from ours than bfloat16 explains is that of another tensor.
_NORM_TOLERANCE = 0.02
# Shares of the variance, which cannot pass 1.
_AT_MOST_ONE = ("explained_variance", "explained_variance_legacy")
# Share of test prompts that were trained on, above which an AUC says how well prompts are remembered.
_LEAK = 0.01


def write_study_table(
    study: str,
    refusals: Mapping[str, str | None],
    core: list[Path],
    probes: list[Path],
    ours: list[Path],
    metrics: list[Path],
    probing: list[Path],
    corpora: Mapping[str, str],
    table: Path,
) -> None:
    """Write the table of a study; `refusals` has the reason for an SAE without files, None for one with files."""
    judged = iter(zip(core, probes, ours, metrics, probing, strict=True))
    saes = {sae_id: Files(*next(judged)) if reason is None else reason for sae_id, reason in refusals.items()}
    write_sae_bench_table(study, saes, corpora, table)


def write_sae_bench_table(study: str, saes: Mapping[str, Files | str], corpora: Mapping[str, str], table: Path) -> None:
    """Write a row per SAE and number; `saes` has the files of an SAE (id →), or why SAE Bench cannot judge it.

    `corpora` is the in-sample corpus of each SAE. Columns are documented in docs/sae_bench.md; what is not defined is
    empty, and has its reason in the column `reason`.
    """
    rows = [row for sae_id, files in saes.items() for row in _rows(study, sae_id, files, corpora[sae_id])]
    write_csv(table, frame_of(rows, columns=COLUMNS))


COLUMNS = (
    *("study", "model", "hook", "target_hook", "mix", "recipe", "seed"),
    *("evaluation", "dataset", "k", "measure", "sae_bench", "atlas", "difference", "reproduced"),
    *("status", "flag", "reason", "n_tokens", "version"),
)


def _rows(study: str, sae_id: str, files: Files | str, corpus: str) -> Iterator[dict[str, Any]]:
    who = identity(study, sae_id)
    if isinstance(files, str):
        yield who | {"status": "not run", "reason": files}
        return
    for row in [*core_rows(files, corpus), *probe_rows(files)]:
        yield who | row


def core_rows(files: Files, corpus: str) -> Iterator[dict[str, Any]]:
    """Rows of the core evaluation: `reproduced` is SAE Bench's formula on our rows, where it is another than ours."""
    run, ours, metrics = (read_json(path) for path in (files.core, files.ours, files.metrics))
    known = metrics["corpora"][corpus]["atlas"] | {"mean_max_cosine": metrics["redundancy"]["mean_max_cosine"]["value"]}
    known |= {key: value for key, value in ours.items() if key != "sae_bench_formula"}
    reasons = metrics["corpora"][corpus]["reasons"]
    norms = run["metrics"]["l2_norm_in"], ours["mean_norm"]
    other_tensor = abs(norms[0] - norms[1]) > _NORM_TOLERANCE * norms[1]
    other_tokens = run["n_counted"] != ours["n_counted"]
    for measure in CORE:
        theirs, mine = run["metrics"].get(measure.name), known[measure.ours]
        flags = _flags(measure, theirs, ours["sae_bench_formula"])
        if other_tensor:
            flags.append(f"mean norm {norms[0]:.4g} of its rows, {norms[1]:.4g} of ours: not the same tensor")
        if other_tokens:
            flags.append(f"it counts {run['n_counted']} tokens, we {ours['n_counted']}")
        yield {
            "evaluation": "core",
            "measure": measure.name,
            "sae_bench": theirs,
            "atlas": mine,
            "difference": None if None in (theirs, mine) else theirs - mine,
            "reproduced": ours["sae_bench_formula"].get(measure.name),
            "status": "fault" if measure.fault else "suspect" if other_tensor or other_tokens else "ok",
            "flag": "; ".join(flags) or None,
            "reason": _reason(theirs, mine, reasons.get(f"atlas_{measure.ours}")),
            "n_tokens": run["n_counted"],
            "version": f"sae-bench {run['versions']['sae-bench']}",
        }


def _reason(theirs: float | None, mine: float | None, why: str | None) -> str | None:
    """Return why one of the two is empty."""
    if theirs is None:
        return "SAE Bench's value is not a number"
    return f"not defined for us: {why}" if mine is None else None


def _flags(measure: BenchMeasure, theirs: float | None, formula: Mapping[str, float]) -> list[str]:
    flags = [text for text in (measure.fault, measure.differs) if text]
    if measure.name in _AT_MOST_ONE and theirs is not None and theirs > 1:
        flags.insert(0, f"{theirs:.3f} of a whole: impossible")
    if measure.name == "explained_variance":
        flags.append(f"gives {formula['explained_variance_of_the_mean']:.3f} for the mean of these rows, which is 0")
    return flags


def probe_rows(files: Files) -> Iterator[dict[str, Any]]:
    """Rows of sae-probes: test AUC with k latents and, as measure `dense`, with the raw activation."""
    run, ours = read_json(files.probes), read_json(files.probing)["datasets"]
    for dataset, aucs in run["test_auc"].items():
        mine, seen = ours.get(dataset), run["seen_in_training"][dataset]
        leak = f"{seen:.0%} of its test prompts are training prompts too; " if seen > _LEAK else ""
        for key, theirs in aucs.items():
            dense = key == "dense"
            value, reason = None, f"{dataset} is none of probing.datasets" if mine is None else None
            if mine is not None and not dense and key not in mine["k"]:
                reason = f"{key} is none of probing.ks"
            elif mine is not None:
                value = mine["dense"]["auc"] if dense else mine["k"][key]["sae"]["auc"]
            yield {
                "evaluation": "sae-probes",
                "dataset": dataset,
                "k": None if dense else int(key),
                "measure": "dense_test_auc" if dense else "sae_test_auc",
                "sae_bench": theirs,
                "atlas": value,
                "difference": None if None in (theirs, value) else theirs - value,
                "status": "fault" if leak else "ok",
                "flag": f"{leak}its own prompts, split, penalty and choice of latents: not the same draw",
                "reason": reason,
                "version": f"sae-probes {run['versions']['sae-probes']}",
            }
