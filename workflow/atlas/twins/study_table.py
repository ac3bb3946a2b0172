"""Table of SAEs against their twins: one row per SAE and measure, of all stages."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

from atlas.config.study import TwinStage
from atlas.studies.rows import identity
from atlas.studies.twins import read_comparisons
from atlas.tables import write_csv
from atlas.twins.downstream import hold_against, read_stage

# Stage and SAE to the file that the stage wrote of it.
StageFiles = Mapping[tuple[TwinStage, str], Path]


def write_learnt(
    study: str,
    comparisons: Mapping[str, Path],
    corpora: Mapping[str, Sequence[str]],
    twins: Mapping[str, Mapping[str, str]],
    stages: Sequence[TwinStage],
    asked: Sequence[Sequence[str]],
    stage_files: Sequence[Path],
    table: Path,
) -> None:
    """Write the table of `write_learnt_table`; `asked` has the stage and the SAE of each of `stage_files`."""
    files: StageFiles = {
        (cast(TwinStage, stage), sae_id): path for (stage, sae_id), path in zip(asked, stage_files, strict=True)
    }
    write_learnt_table(study, comparisons, corpora, twins, stages, files, table)


def write_learnt_table(
    study: str,
    comparisons: Mapping[str, Path],
    corpora: Mapping[str, Sequence[str]],
    twins: Mapping[str, Mapping[str, str]],
    stages: Sequence[TwinStage],
    files: StageFiles,
    table: Path,
) -> None:
    """Write results/<study>_learnt.csv.

    `comparisons` are the twins.json of each SAE, of which the study's `corpora` are taken; `twins` say each SAE's twins
    (SAE -> kind -> id); `files` have what each of `stages` wrote of SAEs and twins. Columns: docs/twins.md.
    """
    rows = []
    for sae_id, comparison in read_comparisons(comparisons).items():
        who = identity(study, sae_id)
        kinds = list(twins[sae_id])
        for corpus in corpora[sae_id]:
            for name, measure in comparison["corpora"][corpus]["measures"].items():
                place = {"stage": "evaluation", "corpus": corpus, "measure": name}
                over = {"over": "documents", "n": measure["n_documents"]}
                rows.append(who | place | _columns(measure, kinds) | over)
        for stage, name, measure in _later(sae_id, twins[sae_id], stages, files):
            place = {"stage": stage, "corpus": None, "measure": name}
            rows.append(who | place | _columns(measure, kinds) | {"over": measure["over"], "n": measure["n"]})
    write_csv(table, pd.DataFrame(rows))


def _later(
    sae_id: str, twins: Mapping[str, str], stages: Sequence[TwinStage], files: StageFiles
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for stage in stages:
        own, *others = (read_stage(stage, files[stage, name], name) for name in (sae_id, *twins.values()))
        for name, measure in hold_against(own, dict(zip(twins, others, strict=True))).items():
            yield stage, name, measure


def _columns(measure: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
    low, high = measure["interval"] or (None, None)
    return {
        "learnt": measure["learnt"],
        "value": measure["value"],
        **{f"twin_{kind}": measure["twins"][kind] for kind in kinds},
        "best_twin": measure["best_twin"],
        "best_value": measure["best_value"],
        "better_by": measure["better_by"],
        "better_by_interval_low": low,
        "better_by_interval_high": high,
    }
