"""Broken configurations as people write them, and what each is told."""

import json
import re

import pytest
import yaml

from atlas.config.__main__ import main
from atlas.config.load import load_config, read_config
from atlas.config.reference import FOLDER
from atlas.config.study import CaseStudy
from atlas.errors import ConfigError
from atlas.studies.published import published_rows

RAW = yaml.safe_load((FOLDER / "config.yaml").read_text())
SWEEP = "studies/llama_sweep"
MODEL = "models/all-minilm-l6-v2"


def changed(path: str, value) -> dict:
    """The default configuration, no mapping of it twice, with one value replaced or (value ...) removed."""
    raw = json.loads(json.dumps(RAW))
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    place = raw
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (f"{SWEEP}/seeds", [], "studies.llama_sweep.seeds: an empty list; expected at least 1 entry"),
        (f"{SWEEP}/rows/0/seeds", [], "studies.llama_sweep.rows[0].seeds: an empty list; expected at least 1 entry"),
        (f"{SWEEP}/seeds", 0, "studies.llama_sweep.seeds: 0; expected a list; write [0]"),
        (f"{SWEEP}/seeds", [0, 0], "studies.llama_sweep.seeds: seeds [0, 0] repeat: name each seed once"),
        (f"{SWEEP}/seeds", [-1], "studies.llama_sweep.seeds[0]: -1; expected at least 0"),
        (
            f"{SWEEP}/published",
            "nope",
            "studies.llama_sweep.published: 'nope' is not one of 'llama_sweep', 'nemotron' or 'bert'",
        ),
        (f"{SWEEP}/rows", None, "studies.llama_sweep.rows: null; expected a list"),
        (SWEEP, None, "studies.llama_sweep: null; expected keys with values: at least evaluation, rows"),
        ("studies", {}, "studies: empty; expected at least 1 entry"),
        (
            f"{SWEEP}/rows/0",
            "resid_post.4",
            "studies.llama_sweep.rows[0]: 'resid_post.4'; expected keys with values: sae, hook",
        ),
        (f"{SWEEP}/rows/0/hooks", "x", "studies.llama_sweep.rows[0].hooks: 'x' unknown key; did you mean 'hook'?"),
        (
            f"{SWEEP}/evaluation/oos",
            "news",
            "studies.llama_sweep.evaluation.oos: 'news'; expected a list; write [news]",
        ),
        (f"{SWEEP}/evaluation/in_sample", [], "studies.llama_sweep.evaluation.in_sample: an empty list; expected at"),
        (f"{MODEL}/source", {"path": "x"}, "models.all-minilm-l6-v2.source: needs a key 'kind', which is one of 'pack"),
        (f"{MODEL}/source", {"kind": "path"}, "models.all-minilm-l6-v2.source.path: required key is missing"),
        (f"{MODEL}/source", "org/name", "models.all-minilm-l6-v2.source: 'org/name'; expected keys with values: among"),
        (f"{MODEL}/source/version", 0.1, 'models.all-minilm-l6-v2.source.version: 0.1; expected text; write "0.1", in'),
        (f"{MODEL}/hooks", "resid_post.2", "models.all-minilm-l6-v2.hooks: 'resid_post.2'; expected a list; write [re"),
        (f"{MODEL}/dtype", "float16", "models.all-minilm-l6-v2.dtype: 'float16' is not one of 'bfloat16' or 'float32'"),
        (
            "models/my model",
            RAW["models"]["all-minilm-l6-v2"],
            "models.my model: 'my model'; expected letters, digits, '.', '_' and '-', no space",
        ),
        ("recipes/topk/steps", 0, "recipes.topk.steps: 0; expected at least 1"),
        ("recipes/topk/steps", "many", "recipes.topk.steps: 'many'; expected a whole number"),
        ("recipes/topk/k", 32.5, "recipes.topk.k: 32.5; expected a whole number"),
        ("recipes/topk/warmup", 10, "recipes.topk.warmup: 10 unknown key; did you mean 'warmup_steps'?"),
        ("mixes/chat/phases", {"until": 1.0}, "mixes.chat.phases: keys with values; expected a list; begin each entry"),
        ("mixes/chat/phases/0/weights/chat", "80%", "mixes.chat.phases[0].weights.chat: '80%'; expected a number"),
        ("corpora/chat/group_pattern", "((", "corpora.chat.group_pattern: '((' is no regular expression: missing )"),
        ("corpora/chat/group_pattern", "abc", "corpora.chat: group_pattern is 'abc': must have a group in parentheses"),
        ("corpora/finance/filter/any_of", [{"field": "t"}], "corpora.finance.filter.any_of[0]: give either 'pattern'"),
        (
            "corpora/finance/filter/any_of",
            [{"field": "text", "vocabulary": ["x"]}],
            "corpora.finance.filter.any_of[0]: min_per_1000_words is 0, which accepts every record",
        ),
        ("autointerp", {"client": {"kind": "openai"}}, "autointerp.client: kind 'openai' with model null: 'words' has"),
        (
            "autointerp",
            {"scorers": ["detektion"]},
            "autointerp.scorers[0]: 'detektion' is not one of 'words', 'embedding', 'det",
        ),
        ("site", {"studies": ["nope"]}, "site.studies names 'nope': must be one of ['bert_inversion', "),
        ("model", {"a": 1}, "model: unknown key; did you mean 'models'?"),
    ],
)
def test_one_mistake_is_one_sentence(path, value, sentence):
    with pytest.raises(ConfigError) as error:
        load_config(changed(path, value), ["c.yaml"])
    head, *faults = str(error.value).splitlines()
    assert head == "c.yaml: 1 fault"
    assert faults[0].startswith(f"  {sentence}"), faults
    assert len(faults) == 1


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{SWEEP}/recipe", ..., r"studies\.llama_sweep\.rows\[0\] and its study name no recipe; expected one of \["),
        (
            f"{SWEEP}/rows/0/override",
            {"architecture": "relu"},
            r"rows\[0\]\.override: architecture relu takes no k; .*another architecture needs a recipe of its own",
        ),
        (f"{SWEEP}/rows/0/override", {"lr": "x"}, r"rows\[0\]\.override\.lr: 'x'; expected a number"),
    ],
)
def test_mistakes_of_rows(path, value, message):
    with pytest.raises(ConfigError, match=message):
        load_config(changed(path, value))


def test_case_studies_are_those_of_the_published_rows():
    assert set(CaseStudy.__args__) == set(published_rows().case_study)


def test_a_fault_names_the_file_that_has_the_key(tmp_path):
    (tmp_path / "mine.yaml").write_text("recipes: {topk: {lr: fast}}\n")
    with pytest.raises(ConfigError, match=r"recipes\.topk\.lr: 'fast'; expected a number \(in .*mine\.yaml\)$"):
        read_config(FOLDER / "config.yaml", tmp_path / "mine.yaml")


def test_files_are_checked_without_snakemake(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("recipes:\n  wide: 1\n  wide: 2\n")
    assert main([str(FOLDER / "config.yaml")]) == 0
    assert f"{len(RAW['studies'])} studies" in capsys.readouterr().out
    assert main([str(FOLDER / "config.yaml"), str(tmp_path / "mine.yaml")]) == 1
    assert re.search(r"mine\.yaml:3: key 'wide' occurs twice", capsys.readouterr().err)
    assert main([]) == 2
