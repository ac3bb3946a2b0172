"""Sum up the time of a run: jobs, wall and CPU seconds, peak memory per rule, from Snakemake's benchmark files.

    .venv/bin/python benchmarks/time_spent.py [results/benchmarks]

Jobs run side by side, so the seconds of all rules add up to more than the run took. CPU seconds are sampled while a
job runs and may miss its end, but change less than wall seconds with what else the machine does.
"""

import sys
from pathlib import Path

import pandas as pd


def main(folder: Path) -> None:
    files = [path for path in folder.rglob("*.tsv") if path.parent != folder]
    if not files:
        sys.exit(f"{folder} has no benchmark files; run the workflow first")
    rows = [pd.read_csv(path, sep="\t").assign(rule=path.relative_to(folder).parts[0]) for path in files]
    columns = {
        "jobs": ("s", "size"),
        "seconds": ("s", "sum"),
        "cpu": ("cpu_time", "sum"),
        "peak_MiB": ("max_rss", "max"),
    }
    table = pd.concat(rows).groupby("rule").agg(**columns)
    table = table.sort_values("seconds", ascending=False)
    print(table.to_string(float_format="%.0f"))
    print(f"{'all':16}{int(table.jobs.sum()):5}{table.seconds.sum():9.0f} {table.cpu.sum():5.0f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results/benchmarks"))
