"""Functions that rules name: what a rule must give, and how its values become arguments."""

import dataclasses
import importlib
import inspect
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from atlas.calls import Given, bind, run_call
from atlas.config.downstream import Absorption
from atlas.folder import Folder
from atlas.signatures import CallError, Parameter, Signatures, check_call

WORKFLOW = Path(__file__).parents[1] / "workflow"
SOURCES = [*(WORKFLOW / "rules").glob("*.smk"), *(WORKFLOW / "atlas").rglob("study.py")]
NAMED = sorted({name for path in SOURCES for name in re.findall(r'"(atlas(?:\.\w+){2,})"', path.read_text())})

MODULE = '''
from dataclasses import dataclass
from pathlib import Path
import torch
from atlas.stage.shapes import Sizes


@dataclass(frozen=True)
class Inputs:
    """Files."""
    weights: Path
    shards: list[Path]
    labels: Path | None = None


def run(inputs: Inputs, *, hook: str, sizes: Sizes, device: torch.device, target: Path, scale: float = 1.0): ...
def table(results: dict[str, Path], table: Path): ...
'''


@pytest.fixture
def signatures(tmp_path) -> Signatures:
    stage = tmp_path / "atlas/stage"
    stage.mkdir(parents=True)
    (stage / "work.py").write_text(MODULE)
    (stage / "shapes.py").write_text("class Sizes(Section):\n    n: int\n")
    return Signatures(tmp_path)


def check(signatures: Signatures, given: list[str], function="atlas.stage.work.run", free=("hook", "seed")) -> None:
    check_call("stage", function, signatures.of(function), given, free)


FITTING = ["weights", "shards", "sizes", "target"]


@pytest.mark.parametrize("given", [FITTING, [*FITTING, "labels"], [*FITTING, "scale"], [*FITTING, "hook"]])
def test_a_rule_gives_fields_of_dataclasses_by_their_names(signatures, given):
    check(signatures, given)


def test_a_mapping_of_files_has_its_keys_beside_it(signatures):
    check(signatures, ["results", "results_by", "table"], "atlas.stage.work.table")
    with pytest.raises(CallError, match=r"nothing for its parameter results"):
        check(signatures, ["results_by", "table"], "atlas.stage.work.table")


@pytest.mark.parametrize(
    ("function", "given", "message"),
    [
        (
            "atlas.stage.lost.run",
            FITTING,
            r"lost\.py: the rule names .*, and there is no such file; correct",
        ),
        ("atlas.stage.work.ran", FITTING, r"work\.py: .* that file defines no function ran; correct the name"),
        ("atlas.stage.work.Inputs", FITTING, r"defines no function Inputs"),
        ("os.remove", FITTING, r"'os\.remove' is no function of the library"),
        ("atlas.stage.work.run", ["shards", "sizes", "target"], r"rule stage calls .* its parameter inputs\.weights;"),
        ("atlas.stage.work.run", ["weights", "shards", "sizes"], r"nothing for its parameter target; name an input"),
        ("atlas.stage.work.run", [*FITTING, "config"], r"gives 'config', which atlas\.stage\.work\.run does not take"),
        ("atlas.stage.work.run", [*FITTING, "target"], r"gives 'target' twice"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused(signatures, function, given, message):
    with pytest.raises(CallError, match=message):
        check(signatures, given, function)


@pytest.mark.parametrize("name", NAMED)
def test_signatures_of_all_rules_are_read_from_the_source_as_python_reads_them(name):
    module, _, function = name.rpartition(".")
    called = getattr(importlib.import_module(module), function)
    hints = typing.get_type_hints(called, include_extras=True)
    parameters = inspect.signature(called).parameters
    expected = [_told(hints[key], key, each.default is inspect.Parameter.empty) for key, each in parameters.items()]
    assert [_read(each) for each in Signatures(WORKFLOW).of(name)] == expected


def test_rules_name_functions():
    assert len(NAMED) > 40


def _read(each: Parameter) -> tuple:
    return (each.name, each.required, each.annotation == "torch.device", each.is_mapping, [*map(_read, each.fields)])


def _told(hint, name: str, required: bool) -> tuple:
    is_device = getattr(hint, "__module__", "") == "torch" and hint.__name__ == "device"
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    if type(None) in typing.get_args(hint) and len(parts) == 1:
        hint = parts[0]
    origin = typing.get_origin(hint)
    is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    kind = typing.get_args(hint)[1] if is_mapping else hint
    fields = []
    if dataclasses.is_dataclass(kind):
        hints, none = typing.get_type_hints(kind, include_extras=True), dataclasses.MISSING
        for field in dataclasses.fields(kind):
            bare = field.default is none and field.default_factory is none
            fields.append(_told(hints[field.name], field.name, bare))
    return (name, required, is_device, is_mapping, fields)


@dataclass(frozen=True)
class Files:
    """Two files and a name of an SAE."""

    metrics: Path
    codes: Path | None
    corpus: str = "chat"


@dataclass(frozen=True)
class Inputs:
    """A folder, files and perhaps one more."""

    sae: Folder
    shards: Sequence[Path]
    embedder: Path | None = None


def bound(function, values: dict, wildcards: dict | None = None, threads: int = 1) -> dict:
    return bind(function, Given(values, wildcards or {}, threads))


def test_values_become_what_annotations_say():
    def run(inputs: Inputs, *, hook: str, seed: int, settings: Absorption, sizes: Mapping[str, int], threads: int): ...

    values = {"sae": ["a/s/w.safetensors", "a/s/cfg.json"], "shards": "x.h5", "embedder": [], "sizes": {"n": 3}}
    values["settings"] = Absorption().model_dump(mode="json")
    found = bound(run, values, {"hook": "resid_post.1", "seed": "12"}, threads=4)
    assert found == {
        "inputs": Inputs(Path("a/s"), [Path("x.h5")], None),
        "hook": "resid_post.1",
        "seed": 12,
        "settings": Absorption(),
        "sizes": {"n": 3},
        "threads": 4,
    }


def test_files_are_mapped_by_their_keys_and_dataclasses_row_by_row():
    def run(study: str, tables: dict[str, Path], saes: Mapping[str, Files]): ...

    values = {"tables": ["1.h5", "2.h5"], "tables_by": ["chat", "news"], "metrics": ["m", "n"], "codes": ["c", "d"]}
    found = bound(run, values | {"saes_by": ["one", "two"]}, {"study": "s"})
    assert found["tables"] == {"chat": Path("1.h5"), "news": Path("2.h5")}
    assert found["saes"] == {"one": Files(Path("m"), Path("c")), "two": Files(Path("n"), Path("d"))}
    with pytest.raises(CallError, match=r"saes\.metrics: 2 values for 3 keys"):
        bound(run, values | {"saes_by": ["one", "two", "three"]}, {"study": "s"})


def test_a_wildcard_is_used_where_nothing_else_has_its_name():
    def run(model: Path, hook: str): ...

    found = bound(run, {"model": "results/models/m"}, {"model": "m", "hook": "mlp_out.0"})
    assert found == {"model": Path("results/models/m"), "hook": "mlp_out.0"}


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (int, "x", r"value is 'x', expected int"),
        (int, True, r"value is True, expected int"),
        (float, "a", r"expected float"),
        (str, 3, r"value is 3, expected str"),
        (bool, "yes", r"expected bool"),
        (Path, ["a", "b"], r"expected Path; correct what the rule gives"),
        (Path, [], r"expected Path"),
        (Folder, ["a/b", "c/d"], r"files of 2 folders; expected files of one"),
        (dict[str, Path], ["a"], r"expected dict"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(hint, value, message):
    def run(value): ...

    run.__annotations__["value"] = hint
    with pytest.raises(CallError, match=message):
        bound(run, {"value": value})


def test_what_is_not_given_is_named():
    def run(table: Path, target: Path = Path("x")): ...

    assert bound(run, {"table": "t"}) == {"table": Path("t")}
    with pytest.raises(CallError, match=r"nothing is given for its parameter table"):
        bound(run, {})


def test_a_job_calls_the_function_and_reports_its_errors(tmp_path, capsys):
    given = Given({"sources": ["a", "b"], "listing": str(tmp_path / "listing.txt")}, {"study": "s"})
    run_call("atlas.studies.sources.write_listing 0123", given, tmp_path / "log", {})
    assert (tmp_path / "listing.txt").read_text().startswith("a\nb\n")
    with pytest.raises(SystemExit):
        run_call("atlas.studies.sources.write_listing 0123", Given({"sources": ["a"]}, {}), tmp_path / "log", {})
    assert "nothing is given for its parameter listing" in (tmp_path / "log").read_text()
