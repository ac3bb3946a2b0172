"""Limits of partitions: the SLURM plugin reads what SLURM means by them, or the file is refused with what to write."""

import dataclasses
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snakemake_executor_plugin_slurm.partitions import PartitionLimits, read_partition_file

from atlas.config.partitions import Partition, check_partitions, slurm_minutes
from atlas.config.reference import FOLDER
from atlas.errors import ConfigError

# `sinfo -h -o "%P|%l|%m|%c|%G"` of SLURM 22.05 for partitions with MaxTime=UNLIMITED, 30, 24:00:00, 2-12:00:00, 90,
# 0-12, 1 and 1-0:30.
SINFO = """\
cpu*|infinite|60000|8|gpu:2
t1|30:00|60000|8|gpu:2
t2|1-00:00:00|60000|8|gpu:2
t3|2-12:00:00|60000|8|gpu:2
t5|1:30:00|60000|8|gpu:2
t6|12:00:00|60000|8|gpu:2
t7|1:00|60000|8|gpu:2
t8|1-00:30:00|60000|8|gpu:2
"""
MINUTES = [math.inf, 30, 1440, 3600, 90, 720, 1, 1470]
LIMITS = [line.split("|")[1] for line in SINFO.splitlines()]


def write(tmp_path, line, name="cpu"):
    path = tmp_path / "partitions.yaml"
    path.write_text(f"partitions:\n  {name}:\n    {line}\n")
    return path


def is_right(path, minutes) -> bool:
    """Check that the plugin reads an accepted limit as `minutes`, and that a refusal says what to write."""
    try:
        check_partitions(path)
    except ConfigError as error:
        remedy = "leave the line out" if math.isinf(minutes) else f"write {math.floor(minutes)}"
        assert remedy in str(error) and "partitions.yaml:" in str(error), str(error)
        return False
    assert read_partition_file(path)[0].limits.max_runtime == minutes
    return True


def test_what_sinfo_prints_means_what_was_configured():
    assert [slurm_minutes(limit) for limit in LIMITS] == MINUTES


@pytest.mark.parametrize(("limit", "minutes"), list(zip(LIMITS, MINUTES, strict=True)))
def test_a_limit_copied_from_sinfo_is_never_misread(tmp_path, limit, minutes):
    """As it is, and in quotes; with days it is accepted as it is."""
    plain = is_right(write(tmp_path, f"max_runtime: {limit}"), minutes)
    quoted = is_right(write(tmp_path, f'max_runtime: "{limit}"'), minutes)
    assert plain == ("-" in limit)
    assert quoted == ("-" in limit or limit.count(":") == 2)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("2880", 2880), ("2d", 2880), ("12h", 720), ("1d12h", 2160), ("1-12", 2160), ("2-0:30", 2910), ("'90'", 90)],
)
def test_other_notations_are_accepted(tmp_path, text, minutes):
    assert is_right(write(tmp_path, f"max_runtime: {text}"), minutes)


@pytest.mark.parametrize("text", ["infinite", "UNLIMITED", "n/a", "INFINITE"])
def test_no_limit_is_a_line_to_leave_out(tmp_path, text):
    assert not is_right(write(tmp_path, f"max_runtime: {text}"), math.inf)
    assert read_partition_file(write(tmp_path, "max_gpu: 0"))[0].limits.max_runtime == math.inf


@settings(max_examples=60, deadline=None)
@given(st.none() | st.integers(0, 9), st.lists(st.integers(0, 99), min_size=1, max_size=3), st.booleans())
def test_no_notation_of_slurm_is_misread(tmp_path_factory, days, clock, quoted):
    text = ("" if days is None else f"{days}-") + ":".join(map(str, clock))
    minutes = slurm_minutes(text)
    line = f'max_runtime: "{text}"' if quoted else f"max_runtime: {text}"
    path = write(tmp_path_factory.mktemp("p"), line)
    try:
        check_partitions(path)
    except ConfigError:
        return
    assert read_partition_file(path)[0].limits.max_runtime == math.floor(minutes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("max_runtime: 24:00:00", r"partitions\.yaml:3: .* SLURM means 1440 minutes by it: write 1440"),
        ("max_runtime: 30:00", r"partitions\.yaml:3: .* SLURM means 30 minutes by it: write 30"),
        ("max_runtime: '0-12'", r"partitions\.cpu\.max_runtime: '0-12': .* write 720 \(minutes\)"),
        ("max_runtime: 2 days", r"'2 days' is no time limit of SLURM; write minutes, or for example 2d"),
        ("max_runtime: 1440.5", r"1440\.5: .* write 1440"),
        ("max_runtime: null", r"max_runtime: null; expected a number"),
        ("max_mem_mb: 250000+", r"max_mem_mb: '250000\+': its nodes differ, .* write 250000"),
        ("max_threads: 64+", r"max_threads: '64\+': .* write 64"),
        ("max_gpu: gpu:a100:4(S:0-1)", r"max_gpu: .*write 4, and available_gpu_models: \[a100\]"),
        ("max_gpu: (null)", r"max_gpu: .*leave the line out"),
        ("max_memory: 3", r"partitions\.cpu\.max_memory: 3 unknown key; did you mean 'max_mem_mb'\?"),
    ],
)
def test_faults_say_what_to_write(tmp_path, line, message):
    with pytest.raises(ConfigError, match=message):
        check_partitions(write(tmp_path, line))


def test_names_are_those_of_sbatch(tmp_path):
    with pytest.raises(ConfigError, match=r"partitions\.cpu\*: sinfo marks the default partition by \*; write cpu"):
        check_partitions(write(tmp_path, "max_gpu: 0", name="cpu*"))


def test_keys_are_those_of_the_plugin():
    theirs = {entry.name for entry in dataclasses.fields(PartitionLimits)}
    assert set(Partition.model_fields) == theirs | {"cluster"}


def test_our_file_is_sound_and_its_comments_too(tmp_path):
    """A line that the comments invite to write is one that is read."""
    path = FOLDER.parent / "profiles/slurm/partitions.yaml"
    assert set(check_partitions(path).partitions) == {"cpu", "gpu"}
    for text in re.findall(r'2d|"[0-9-]+:[0-9:]+"', path.read_text()):
        check_partitions(write(tmp_path, f"max_runtime: {text}"))
