import copy
import re

import jsonschema
import pytest
import yaml

from atlas.autointerp.cost import cost
from atlas.config.budget import mean_weights
from atlas.config.grid import has_budgets
from atlas.config.load import load_config, read_config
from atlas.config.mixes import Mix
from atlas.config.recipe import Recipe
from atlas.config.reference import FOLDER, readme_text, schema_text
from atlas.config.rows import expand_rows
from atlas.errors import ConfigError
from atlas.hook_points import HookPoint
from atlas.measures import endings, measures

DEFAULT = FOLDER / "config.yaml"
RAW = yaml.safe_load(DEFAULT.read_text())


def changed(path: str, value) -> dict:
    """The default configuration with one value replaced, added, or (value ...) removed."""
    raw = copy.deepcopy(RAW)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    place = raw
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return raw


def test_default_expands_to_the_guides_grid():
    rows = expand_rows(read_config(DEFAULT))["llama_sweep"]
    assert [(row.hook, row.recipe.n_latents, row.recipe.k) for row in rows if row.seed == 0] == [
        ("resid_post.4", 1200, 32),
        ("resid_post.10", 400, 32),
        ("resid_post.19", 400, 32),
        ("resid_post.28", 400, 32),
    ]
    assert len({row.sae_id for row in rows}) == 8
    assert rows[0].sae_id == "smollm2-135m/resid_post.4/chat/topk/seed-0"
    assert list(rows[0].roles.values()) == ["in_sample", "proxy", "oos"]


def test_nulls_have_the_recipe_of_the_sweep():
    """Only the weights of the model differ, so only they can make a difference."""
    config = read_config(DEFAULT)
    studies = expand_rows(config)
    drawn, learnt = studies["nulls"]
    assert drawn.recipe == learnt.recipe
    assert learnt.sae_id in {row.sae_id for row in studies["llama_sweep"]}
    same = {"random_weights": None, "hooks": config.models[learnt.model].hooks}
    assert config.models[drawn.model].model_copy(update=same) == config.models[learnt.model]
    assert config.models[drawn.model].random_weights == 0


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("recipes/topk/kk", 3, r"recipes\.topk\.kk: 3 unknown key; did you mean 'k'"),
        ("models/smollm2-135m/d_model", ..., r"models\.smollm2-135m\.d_model: required key is missing"),
        ("models/smollm2-135m/n_layers", 12, r"hook 'resid_post\.19' names layer 19: the model has layers 0 to 11"),
        ("models/smollm2-135m/hooks", ["resid_mid.4"], r"'resid_mid\.4' is not '<site>\.<layer>'"),
        (
            "models/smollm2-135m/harvest/train_tokens",
            1000,
            r"train_tokens is 1000: must be a multiple of context_length",
        ),
        ("models/smollm2-135m/source/sha256", "abc", r"models\.smollm2-135m\.source\.sha256: 'abc'"),
        (
            "models/smollm2-135m/source/kind",
            "url",
            r"models\.smollm2-135m\.source: kind is 'url'; expected 'package', 'package_parts', 'hub', 'path'",
        ),
        ("mixes/chat/phases/0/weights", {"poems": 1.0}, r"mixes\.chat names corpus 'poems': must be one of"),
        ("mixes/chat/phases/0/weights", {"chat": 0.7}, r"mixes\.chat\.phases\[0\]: .*sum to 0\.7.*sum to 1"),
        ("mixes/chat/phases/0/until", 0.5, r"mixes\.chat: phases end at \[0\.5\]"),
        ("recipes/topk/k", 400, r"recipes\.topk: k is 400: must be below n_latents, which is 400"),
        ("recipes/topk/k", ..., r"recipes\.topk: architecture topk needs k"),
        (
            "recipes/topk/architecture",
            "topkk",
            r"recipes\.topk\.architecture: 'topkk' .*'topk', 'batch_topk', .* or 'jumprelu'",
        ),
        (
            "studies/llama_sweep/rows/2/hook",
            "resid_post.40",
            r"llama_sweep\.rows\[2\]\.hook: 'resid_post\.40' is beyond",
        ),
        (
            "studies/llama_sweep/rows/2/hook",
            "resid_post.20",
            r"rows\[2\]\.hook: 'resid_post\.20' is not one of models\.",
        ),
        (
            "studies/llama_sweep/rows/2/hook",
            "resid_post.4",
            r"rows\[2\]: duplicate row 'smollm2-135m/resid_post\.4/chat",
        ),
        ("studies/llama_sweep/rows/0/override", {"k": 1200, "n_latents": 1200}, r"rows\[0\]\.override: .*k is 1200"),
        ("studies/llama_sweep/rows/0/override", {"depth": 2}, r"rows\[0\]\.override\.depth: 2 unknown key"),
        ("recipes/topk/warmup_steps", 1500, r"recipes\.topk: warmup_steps is 1500: must be below steps \(1500\)"),
        (
            "studies/llama_sweep/rows/0/override",
            {"steps": 100},
            r"rows\[0\]\.override: .*warmup_steps is 100: must be below steps \(100\), .* for the default, 5",
        ),
        (
            "recipes/topk/max_epochs",
            5,
            r"rows\[0\]: corpus 'chat' has 196,608 rows to train on, of which 1,500 steps of 1,024 rows draw "
            r"1,536,000: 7\.81 epochs, max_epochs is 5\. .* 307,200 rows are stored, lower steps to 960 or fewer",
        ),
        ("studies/llama_sweep/rows/0/override", {"steps": 10_000}, r"rows\[0\]: corpus 'chat' .*52\.1 epochs"),
        ("tracking", {"wandb": {"mode": "offline"}}, r"tracking\.wandb\.project: required key is missing"),
        ("tracking", {"wandb": {"project": "p", "api_key": "x"}}, r"tracking\.wandb\.api_key: 'x' unknown key"),
        ("studies/llama_sweep/mix", "chats", r"rows\[0\]\.mix: 'chats' is not one of \['chat', "),
        ("studies/llama_sweep/recipe", "topq", r"rows\[0\]\.recipe: 'topq' is not one of \[.*'topk'"),
        ("studies/llama_sweep/evaluation/oos", ["chat"], r"studies\.llama_sweep\.evaluation: corpora .* repeat"),
        ("studies/llama_sweep/evaluation/oos", ["poems"], r"llama_sweep\.evaluation: corpus 'poems' is not one of"),
        ("studies/llama_sweep/evaluation/in_sample", "encyclopedia", r"corpora .* repeat"),
    ],
)
def test_fault_names_file_key_value_and_expectation(path, value, message):
    with pytest.raises(ConfigError, match=r"^config\.yaml: ") as error:
        load_config(changed(path, value), ["config.yaml"])
    assert __import__("re").search(message, str(error.value).replace("\n", " ")), str(error.value)


def test_evaluation_corpus_that_is_trained_on_is_refused():
    raw = changed("mixes/chat/phases/0/weights", {"chat": 0.5, "news": 0.5})
    with pytest.raises(ConfigError, match=r"evaluation\.oos: 'news' is in training mix 'chat'"):
        load_config(raw)


def test_in_sample_corpus_must_be_trained_on():
    raw = changed("studies/llama_sweep/evaluation", {"in_sample": "encyclopedia", "oos": ["news"]})
    with pytest.raises(ConfigError, match=r"'encyclopedia' is not in training mix 'chat'"):
        load_config(raw)


def test_same_sae_with_two_recipes_in_two_studies_is_refused():
    raw = copy.deepcopy(RAW)
    raw["studies"]["other"] = copy.deepcopy(raw["studies"]["llama_sweep"])
    assert len(expand_rows(load_config(raw))["other"]) == 8
    raw["studies"]["other"]["rows"] = [{"hook": "resid_post.4", "override": {"k": 8}}]
    with pytest.raises(
        ConfigError, match=r"studies\.other\.rows\[0\]\.override: .* trained otherwise in study 'llama_sweep'"
    ):
        load_config(raw)


def test_batch_topk_that_would_never_set_its_threshold_is_refused():
    with pytest.raises(ValueError, match="threshold_start_step is 1000: must be below steps"):
        Recipe(architecture="batch_topk", n_latents=64, k=4, steps=1000, threshold_start_step=1000)


def test_any_number_of_epochs_can_be_asked_for():
    raw = changed("recipes/topk/max_epochs", None)
    raw["recipes"]["topk"]["steps"] = 10**6
    assert load_config(raw).recipes["topk"].max_epochs is None


def test_average_shares_of_a_curriculum():
    phases = [{"until": 0.25, "weights": {"a": 1.0}}, {"until": 1.0, "weights": {"a": 0.6, "b": 0.4}}]
    assert mean_weights(Mix(phases=phases)) == pytest.approx({"a": 0.25 + 0.75 * 0.6, "b": 0.75 * 0.4})


@pytest.mark.parametrize("ending", [*endings(), "_runs", "_public"])
def test_a_study_must_not_be_named_as_a_file_of_another(ending):
    raw = copy.deepcopy(RAW)
    raw["studies"][f"a{ending}"] = raw["studies"]["llama_sweep"]
    with pytest.raises(ConfigError, match=rf"studies\.a{ending} ends in '{ending}': files of 'a' would have its name"):
        load_config(raw)


def test_every_ending_of_a_file_of_a_study_is_known():
    """Endings of the rules' outputs: tables, figures, pages. Measures tell their own."""
    rules = "".join(path.read_text() for path in sorted((FOLDER.parent / "workflow/rules").glob("*.smk")))
    found = set(re.findall(r'"results/(?:\w+/)?\{study\}(_\w+)\.', rules))
    assert found | {ending for each in measures() for ending in each.endings()} == set(endings())
    assert {"_health", "_confusion", "_sae_bench", "_transfer", "_width"} <= set(endings())


@pytest.mark.parametrize("name", ["frameworks", "frameworks.v2"])
def test_a_study_must_not_be_named_as_the_comparison_of_frameworks(name):
    raw = copy.deepcopy(RAW)
    raw["studies"][name] = raw["studies"]["llama_sweep"]
    with pytest.raises(ConfigError, match=rf"studies\.{name}: results/frameworks\.csv is the table"):
        load_config(raw)


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (
            "mixes/chat/phases",
            [{"until": 2.0, "weights": {"chat": 1.0}}],
            "mixes.chat.phases[0].until: 2.0; expected at most 1.0",
        ),
        (
            "studies/llama_sweep/evaluation/in_sample",
            5,
            "studies.llama_sweep.evaluation.in_sample: 5; expected text, or a list of texts",
        ),
        ("corpora/chat/source", {"kind": "path"}, "corpora.chat.source.path: required key is missing"),
        (
            "corpora/chat/source",
            {"kind": "path", "path": 5},
            'corpora.chat.source.path: 5; expected text; write "5", in quotes',
        ),
    ],
)
def test_one_fault_is_reported_once(path, value, fault):
    with pytest.raises(ConfigError) as raised:
        load_config(changed(path, value))
    assert str(raised.value).splitlines() == ["configuration: 1 fault", f"  {fault}"]


def test_all_faults_are_reported_at_once():
    raw = changed("recipes/topk/kk", 3)
    raw["corpora"]["chat"]["color"] = "red"
    with pytest.raises(ConfigError, match="2 faults"):
        load_config(raw)


def test_not_yaml_names_the_file(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("models: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml:1: not YAML at column 10: .* '<stream end>'"):
        read_config(path)


def test_hook_point_round_trip():
    assert str(HookPoint.parse("mlp_out.7")) == "mlp_out.7"
    assert HookPoint.parse("resid_post.3").is_residual
    for text in ("resid_post", "resid_post.", "resid_post.-1", "resid_post.3.1", " resid_post.3", "x.1"):
        with pytest.raises(ValueError, match="is not"):
            HookPoint.parse(text)


def test_schema_and_key_table_are_current():
    assert (FOLDER / "config.schema.json").read_text() == schema_text(), "run `make docs`"
    readme = (FOLDER / "README.md").read_text()
    assert readme == readme_text(readme), "run `make docs`"


def test_default_file_meets_the_schema():
    jsonschema.validate(RAW, yaml.safe_load(schema_text()))


@pytest.mark.parametrize("path", sorted((FOLDER / "paper").glob("*.yaml")), ids=lambda path: path.stem)
def test_paper_scale_files_lie_over_the_default(path):
    config = read_config(DEFAULT, path)
    assert len(expand_rows(config)[f"{path.stem}_paper"]) >= 1
    assert "llama_sweep" in config.studies


def test_trial_of_formatting_trains_on_two_halves_of_the_same_conversations():
    config = read_config(DEFAULT, FOLDER / "formatting.yaml")
    with_it, without = (config.corpora[name] for name in ("formatted", "unformatted"))
    assert with_it.filter.any_of == without.filter.any_of
    assert (with_it.filter.invert, without.filter.invert) == (False, True)
    assert {row.mix for row in expand_rows(config)["formatting"]} == {"formatted", "unformatted"}


@pytest.mark.parametrize("overlay", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_overlay_on_the_default_is_valid(overlay):
    config = read_config(*dict.fromkeys([DEFAULT, overlay]))
    assert expand_rows(config).keys() == config.studies.keys()


def test_studies_of_a_budget_differ_in_length_alone():
    rows = expand_rows(read_config(DEFAULT, FOLDER / "more_rows.yaml"))["more_rows"]
    (useful,) = expand_rows(read_config(DEFAULT, FOLDER / "useful_features.yaml"))["useful_features"][::2]
    assert has_budgets(rows) and has_budgets([rows[0], rows[-1]])
    assert {row.recipe.steps * row.recipe.batch_size for row in rows} == {204_800, 614_400, 2_048_000}
    kept = ("architecture", "n_latents", "k", "lr", "batch_size", "threshold_beta")
    for row in rows:
        assert [getattr(row.recipe, key) for key in kept] == [getattr(useful.recipe, key) for key in kept]
        assert row.recipe.decay_start == 0.7 * row.recipe.steps


def test_massive_kept_is_the_tutorials_recipe_in_two_number_formats():
    config = read_config(DEFAULT, FOLDER / "massive_kept.yaml")
    for name in ("massive-kept", "topk"):
        for dtype in ("bfloat16", "float32"):
            expected = config.recipes[name].model_copy(update={"matmul_dtype": dtype})
            assert config.recipes[f"{name}-{dtype}"] == expected
    seeds = [row.seed for row in expand_rows(config)["massive_kept"] if row.recipe_name == "massive-kept-float32"]
    assert seeds == list(range(8))


def test_intruders_lie_over_the_default():
    assert "intruder_embedding" in read_config(DEFAULT, FOLDER / "intruder_labels.yaml").autointerp.scorers


def test_labels_by_the_chat_model_lie_over_the_default():
    """And ask no more than docs/autointerp.md says."""
    config = read_config(DEFAULT, FOLDER / "chat_model_labels.yaml")
    assert config.autointerp.client.model in config.models
    assert cost(config.autointerp, 400).requests == 592
