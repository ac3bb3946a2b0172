"""The registry of measures: one folder and one line make a table and a figure of every study."""

import sys
from types import ModuleType

import pytest

from atlas import measures as registry
from atlas.config.load import load_config
from atlas.config.plan import StudyPlan
from atlas.config.rows import expand_rows
from atlas.measure import Figure, Measure, of_saes
from atlas.signatures import Signatures, check_call

RULE = {"study"}  # wildcards of the rules in workflow/rules/measures.smk


@pytest.fixture
def added(monkeypatch):
    """A measure in a package of its own, with its line in the registry."""
    module = ModuleType("atlas.lengths.study")
    module.MEASURE = Measure("lengths", writes="atlas.lengths.table.write", figure=Figure("a.b", kind="lengths"))
    monkeypatch.setitem(sys.modules, "atlas.lengths.study", module)
    monkeypatch.setattr(registry, "PACKAGES", (*registry.PACKAGES, "lengths"))
    registry.measures.cache_clear()
    registry.endings.cache_clear()
    yield module.MEASURE
    monkeypatch.undo()
    registry.measures.cache_clear()
    registry.endings.cache_clear()


def test_one_line_gives_a_measure_its_files_and_its_ending(added):
    assert registry.measures()[-1] is added
    assert added.tables == {"table": "results/{study}_lengths.csv"}
    assert added.figure_inputs == {"table": "results/{study}_lengths.csv"}
    assert added.figure_files == [f"results/figures/{{study}}_lengths.{suffix}" for suffix in ("pdf", "png", "txt")]
    assert "_lengths" in registry.endings()


def test_names_and_files_of_measures_are_their_own():
    every = registry.measures()
    names = [f"study_{each.name}" for each in every] + [f"{each.figure_name}_figure" for each in every if each.figure]
    assert len(set(names)) == len(names)
    files = [path for each in every for path in (*each.tables.values(), *each.figure_files)]
    own = [path for path in files if not path.startswith("results/figures/{study}.")]  # of studies of one kind
    assert len(set(own)) == len(own)


@pytest.mark.parametrize("measure", registry.measures(), ids=lambda measure: measure.name)
def test_functions_of_a_measure_take_what_its_rules_give(measure, library):
    keys = [f"{name}_by" for name in measure.per_sae]
    given = [*measure.per_sae, *keys, *measure.inputs, *measure.params, *measure.tables]
    signatures = Signatures(library)
    check_call(measure.name, measure.writes, signatures.of(measure.writes), given, RULE)
    if figure := measure.figure:
        drawn = [*measure.figure_inputs, *figure.params, "targets"]
        check_call(measure.name, figure.draws, signatures.of(figure.draws), drawn, RULE)


@pytest.fixture
def library(request):
    return request.config.rootpath / "workflow"


@pytest.fixture
def plans(request):
    import yaml

    config = load_config(yaml.safe_load((request.config.rootpath / "config/config.yaml").read_text()))
    return {name: StudyPlan(name, rows, config, {}) for name, rows in expand_rows(config).items()}


def test_studies_have_the_measures_that_fit_them(plans):
    by_name = {each.name: each for each in registry.measures()}
    fitting = {
        name: [study for study, plan in plans.items() if by_name[name].in_all and by_name[name].in_all(plan)]
        for name in ("finance", "regimes", "transfer", "recovery", "densities")
    }
    assert fitting == {
        "finance": ["finance_mix"],
        "regimes": ["failure_atlas"],
        "transfer": ["transfer"],
        "recovery": ["planted_truth"],
        "densities": [],
    }
    assert by_name["stability"].figure.drawn(plans["llama_sweep"])
    assert not by_name["latents"].figure.drawn(plans["planted_truth"])


def test_files_of_saes_come_once_and_in_the_order_of_the_rows(plans):
    plan = plans["llama_sweep"]
    files = of_saes("results/probing/{sae}/probing.json")(plan)
    assert files == [f"results/probing/{sae}/probing.json" for sae in plan.saes]
    assert len(set(files)) == len(files) == len(plan.by_sae)
