"""Describe a measure of a study: what it computes for each SAE, its table, its figure, and the studies that have it.

Each package of the library that measures something has a file `study.py` with a `MEASURE`. The rules of its stages, of
its table and of its figure are made from it (`workflow/rules/stages.smk`, `measures.smk`). It is read whenever the
workflow is parsed, so it imports nothing heavy, and names functions as text.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# Of a StudyPlan (config/plan.py), which knows the configuration, and hence this.
Decides = Callable[[Any], bool]
Finds = Callable[[Any], Any]


@dataclass(frozen=True)
class Figure:
    """A figure of a measure, in PDF and PNG, with its caption."""

    draws: str  # the function; takes the inputs, and the three files as `targets`
    kind: str  # label in Snakemake's report
    name: str | None = None  # None: that of its measure
    # Paths with {study}, by the function's parameters; None: the table of its measure, as `table`.
    inputs: Mapping[str, str] | None = None
    params: Mapping[str, Finds] = field(default_factory=dict)
    is_main: bool = False  # takes the place of the figure of the study's own table
    drawn: Decides | None = None  # studies for which `snakemake figures` draws it; None: where it is asked for
    memory_mb: int = 1000


@dataclass(frozen=True)
class Stage:
    """A job for each SAE: what it reads, what it writes, and what it asks of the machine.

    Inputs, params and outputs are named like the function's parameters. Functions are asked about an SaePlan
    (config/plan.py). Paths of outputs have {sae}.
    """

    name: str  # of its rule, its logs and its benchmarks
    runs: str  # the function
    outputs: Mapping[str, str]
    says: str  # what the job does, for its message: "Probing" is followed by the names of the SAE
    inputs: Mapping[str, Finds] = field(default_factory=dict)
    waits_for: Finds | None = None  # inputs that the function does not read
    params: Mapping[str, Finds] = field(default_factory=dict)
    note: Finds | None = None  # what a dry run says of the job
    models: Decides | None = None  # models whose SAEs can have it (of a ModelEntry); None: all
    holds: tuple[str, ...] = ()  # what is in memory: model, codes (two dictionaries), probing (labelled rows)
    memory_mb: int | Finds = 0  # beside that
    minutes: int = 60
    reads_rows: bool = False  # whether it passes all held-out rows through the dictionary: many take longer
    threads_of_model: bool = False  # as many threads as its model gets, rather than one
    gpu: bool | Decides | None = None  # whether it asks for a GPU; None: never


@dataclass(frozen=True)
class Measure:
    """A measure of SAEs that has a table for each study, results/<study>_<name>.csv."""

    name: str
    writes: str  # the function that writes the table; takes `study`, inputs, params and outputs
    stages: tuple[Stage, ...] = ()  # what is computed for each SAE
    per_sae: Mapping[str, str] = field(default_factory=dict)  # mappings of SAEs to files: paths with {sae}
    inputs: Mapping[str, Finds] = field(default_factory=dict)
    params: Mapping[str, Finds] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)  # paths with {study}; empty: the table alone, as `table`
    note: Finds | None = None  # what a dry run says of a study's table
    studies: Decides | None = None  # studies that can have it; None: all
    in_all: Decides | None = None  # studies for which a plain `snakemake` makes table and figure; None: none
    figure: Figure | None = None
    memory_mb: int = 1000
    minutes: int = 10

    @property
    def tables(self) -> dict[str, str]:
        """Paths of its tables by the function's parameters."""
        return dict(self.outputs) or {"table": f"results/{{study}}_{self.name}.csv"}

    @property
    def figure_name(self) -> str | None:
        """Name of its figure, which begins its rule's name."""
        return None if self.figure is None else self.figure.name or self.name

    @property
    def figure_files(self) -> list[str]:
        """PDF, PNG and caption of its figure; none without one."""
        if self.figure is None:
            return []
        ending = "" if self.figure.is_main else f"_{self.figure_name}"
        return [f"results/figures/{{study}}{ending}.{suffix}" for suffix in ("pdf", "png", "txt")]

    @property
    def figure_inputs(self) -> dict[str, str]:
        """Paths that its figure is drawn from, by the function's parameters."""
        if self.figure is None:
            return {}
        return dict(self.figure.inputs or {"table": f"results/{{study}}_{self.name}.csv"})

    def endings(self) -> Iterator[str]:
        """Endings that its files add to the name of a study."""
        for path in [*self.tables.values(), *self.figure_files]:
            yield from re.findall(r"\{study\}(_\w+)\.", path)


def of_saes(pattern: str) -> Finds:
    """Return a function that finds a file of each SAE of a study: the pattern with its {sae}."""
    return lambda study: [pattern.format(sae=sae) for sae in study.saes]
