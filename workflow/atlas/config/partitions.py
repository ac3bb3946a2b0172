"""The partitions of a SLURM cluster as profiles/slurm/partitions.yaml states them for Snakemake's SLURM plugin.

The plugin reads the file itself. What it would read otherwise than SLURM writes it is refused here, with the number to
write.
"""

import math
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, ValidationError

from atlas.config.base import Section
from atlas.config.faults import describe
from atlas.errors import ConfigError
from atlas.yaml_files import read_yaml

# SLURM's notations (sbatch, --time): minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]].
_SLURM = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})")
# Snakemake's, which the plugin reads too: 2d, 12h, 1d12h.
_UNITS = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_NO_LIMIT = ("infinite", "unlimited", "n/a", "-1")


def slurm_minutes(text: str) -> float:
    """Minutes of a time limit as SLURM's programs write it; infinity for none. Raises ValueError for other text."""
    text = text.strip().lower()
    if text in _NO_LIMIT:
        return math.inf
    if not (match := _SLURM.fullmatch(text)):
        raise ValueError(f"{text!r} is no time limit of SLURM; write minutes, or for example 2d or 1-12:00:00")
    numbers = [int(number) for number in match["clock"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
        return 1440 * int(match["days"]) + 60 * hours + minutes + seconds / 60
    hours, minutes, seconds = {1: [0, *numbers, 0], 2: [0, *numbers], 3: numbers}[len(numbers)]
    return 60 * hours + minutes + seconds / 60


def _runtime(value: Any) -> Any:
    """Minutes, where the plugin reads the same; ValueError with what to write for all others."""
    if isinstance(value, str):
        minutes = _minutes(value.strip())
        days, _, clock = value.strip().rpartition("-")
        # The plugin takes two numbers for hours and minutes, and ignores days that are 0.
        differs = (clock.count(":") == 1 and not days) or (":" not in clock and days and int(days) == 0)
    else:
        minutes, differs = _number(value), False
    if isinstance(minutes, float) and math.isfinite(minutes):
        differs = differs or math.floor(minutes + 0.5) > minutes  # the plugin rounds half up
    if differs:
        raise ValueError(
            f"{value!r}: the SLURM plugin reads another time than SLURM; write {math.floor(minutes)} (minutes)"
        )
    return minutes


def _minutes(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if text and (match := _UNITS.fullmatch(text)):
        days, hours, minutes, seconds = (float(number or 0) for number in match.groups())
        return 1440 * days + 60 * hours + minutes + seconds / 60
    if math.isinf(limit := slurm_minutes(text)):
        raise ValueError(f"{text!r}, which is no limit: leave the line out")
    return limit


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number")
    return value


def _amount(value: Any) -> Any:
    """A number; sinfo writes 64+ where nodes differ."""
    if isinstance(value, str) and re.fullmatch(r"\d+\+", value.strip()):
        number = value.strip().removesuffix("+")
        raise ValueError(f"{value!r}: its nodes differ, {number} is the least of them: write {number}")
    return _number(value)


def _gpus(value: Any) -> Any:
    """A number; sinfo writes gpu:a100:4(S:0-1), and (null) for none."""
    if isinstance(value, str):
        if value.strip() == "(null)":
            raise ValueError(f"{value!r}, which is none: leave the line out")
        if match := re.match(r"(?:gres/)?gpu(?::([A-Za-z][\w.-]*))?[:=](\d+)", value.strip()):
            model = f", and available_gpu_models: [{match[1]}] in a line of its own" if match[1] else ""
            raise ValueError(f"{value!r}: write {match[2]}{model}")
    return _number(value)


Amount = Annotated[float, Field(gt=0), BeforeValidator(_amount)]


class Partition(Section):
    """The limits of one partition; a job goes to the one that it fills most."""

    max_runtime: Annotated[float, Field(gt=0), BeforeValidator(_runtime)] = math.inf
    max_mem_mb: Amount = math.inf
    max_mem_mb_per_cpu: Amount = math.inf
    max_cpus_per_task: Amount = math.inf
    max_threads: Amount = math.inf
    max_nodes: Amount = math.inf
    max_tasks: Amount = math.inf
    max_tasks_per_node: Amount = math.inf
    max_gpu: Annotated[int, BeforeValidator(_gpus)] = Field(default=0, ge=0)
    available_gpu_models: tuple[str, ...] | None = None
    max_cpus_per_gpu: Amount = math.inf
    supports_mpi: bool = True
    max_mpi_tasks: Amount = math.inf
    available_constraints: tuple[str, ...] | None = None
    cluster: str | None = Field(default=None, validation_alias=AliasChoices("slurm_cluster", "cluster", "clusters"))


class Partitions(Section):
    """The file."""

    partitions: dict[str, Partition] = Field(min_length=1)


def check_partitions(path: Path | str) -> Partitions:
    """Read a file of partitions. Raises ConfigError that names the file, the key, the value and what to write."""
    raw = read_yaml(path, meant=_meant)
    try:
        found = Partitions.model_validate(raw)
    except ValidationError as error:
        faults = "\n".join(f"  {fault}" for fault in describe(error.errors(), Partitions, {}))
        raise ConfigError(f"{path}:\n{faults}") from None
    for name in found.partitions:
        if name.endswith("*"):
            raise ConfigError(
                f"{path}: partitions.{name}: sinfo marks the default partition by *; write {name.removesuffix('*')}"
            )
    return found


def _meant(place: str, text: str) -> str | None:
    """Return what to write for a time that YAML takes for a number to base 60."""
    if not place.endswith("max_runtime"):
        return None
    minutes = math.floor(slurm_minutes(text))
    return f"SLURM means {minutes} minutes by it: write {minutes}"
