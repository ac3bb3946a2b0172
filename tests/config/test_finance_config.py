"""Budgets of single corpora, roles of a row's own, and section `finance`."""

import copy
import re

import pytest
import yaml

from atlas.config.data import Harvest
from atlas.config.load import load_config
from atlas.config.reference import FOLDER
from atlas.config.rows import expand_rows
from atlas.errors import ConfigError

RAW = yaml.safe_load((FOLDER / "config.yaml").read_text())
MODEL, STUDY = ["models", "smollm2-135m", "harvest"], ["studies", "finance_mix"]


def changed(*changes) -> dict:
    """The default configuration after changes, each a list of keys and the value that goes there."""
    raw = copy.deepcopy(RAW)
    for path, value in changes:
        place = raw
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    return raw


def test_a_corpus_has_a_budget_and_shards_of_its_own():
    harvest = Harvest(
        context_length=8, train_tokens=64, eval_tokens=16, shard_tokens=32, corpora={"little": {"train_tokens": 40}}
    )
    little = harvest.of("little")
    assert (little.tokens("train"), little.tokens("eval")) == (40, 16)
    assert (little.n_shards("train"), harvest.of("other").n_shards("train")) == (2, 2)
    assert (
        Harvest(**(harvest.model_dump() | {"corpora": {"little": {"train_tokens": 32}}})).of("little").n_shards("train")
        == 1
    )


def test_every_mix_is_trained_on_as_many_rows_and_judged_on_the_same_four_corpora():
    rows = expand_rows(load_config(RAW))["finance_mix"]
    assert {row.mix for row in rows} == {"generic", "finance", "static", "curriculum"}
    assert len({row.recipe for row in rows}) == 1 and len(rows) == 8
    assert {frozenset(row.roles) for row in rows} == {frozenset(("chat", "encyclopedia", "news", "finance"))}
    roles = {row.mix: row.roles for row in rows}
    assert roles["finance"]["chat"] == roles["generic"]["finance"] == "oos"
    assert [corpus for corpus, role in roles["static"].items() if role == "in_sample"] == ["chat", "finance"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ([*MODEL, "corpora"], {"poems": {}}, r"smollm2-135m\.harvest\.corpora names 'poems': must be one of"),
        (
            [*MODEL, "corpora"],
            {"finance": {"train_tokens": 1000}},
            r"corpora\.finance: train_tokens is 1000: must be a multiple of context_length, 256",
        ),
        (
            [*MODEL, "corpora", "finance", "train_tokens"],
            25600,
            r"finance_mix\.rows\[1\]: corpus 'finance' has 25,600 rows .* 60 epochs, max_epochs is 10",
        ),
        (
            [*STUDY, "rows", 0, "evaluation"],
            {"in_sample": "chat", "oos": ["poems"]},
            r"finance_mix\.rows\[0\]\.evaluation: corpus 'poems' is not one of",
        ),
        (
            [*STUDY, "rows", 1, "evaluation", "in_sample"],
            ["news"],
            r"finance_mix\.rows\[1\]\.evaluation: corpora .* repeat",
        ),
        (
            [*STUDY, "rows", 1, "evaluation"],
            {"in_sample": "chat", "oos": ["finance"]},
            r"rows\[1\]\.evaluation\.oos: 'finance' is in training mix 'finance'",
        ),
        (
            [*STUDY, "rows", 0, "evaluation"],
            {"in_sample": ["chat", "finance"], "oos": ["news"]},
            r"rows\[0\]\.evaluation\.in_sample: 'finance' is not in training mix 'generic'; expected one of chat",
        ),
        (["finance"], {"mix": RAW["finance"]["finance_mix"]}, r"finance\.mix: 'mix' is no study"),
        (["finance", "finance_mix", "moved"], "poems", r"finance\.finance_mix\.moved: 'poems' is not one of"),
        (
            ["finance", "finance_mix", "moved"],
            "finance-dialogue",
            r"moved: the wrapper of 'finance-dialogue' is that of another of \['finance', 'finance-dialogue'\]",
        ),
        (
            ["corpora", "finance-moved", "eval_fraction"],
            0.2,
            r"moved: eval_fraction of 'finance-moved' is 0\.2, but 0\.1 of 'finance'; they must differ in",
        ),
        (["finance", "finance_mix", "generic"], "finance-moved", r"generic: .* is not evaluated on 'finance-moved'"),
        (["mixes", "static", "phases", 0, "weights"], {"chat": 0.8, "finance-moved": 0.2}, r"'finance' is not in"),
        (["corpora", "finance-moved", "wrapper"], {"before": ""}, r"give 'before', 'after', or both"),
        (["corpora", "finance-moved", "template"], "chat_template", r"wrapper cannot stand around .*'chat_template'"),
    ],
)
def test_faults_name_the_key_and_what_was_expected(path, value, message):
    with pytest.raises(ConfigError) as error:
        load_config(changed((path, value)))
    assert re.search(message, str(error.value).replace("\n", " ")), str(error.value)


def test_an_sae_has_the_same_roles_in_every_study():
    other = copy.deepcopy(RAW["studies"]["finance_mix"]) | {
        "rows": [copy.deepcopy(RAW["studies"]["finance_mix"]["rows"][0])]
    }
    fine = changed((["studies", "other"], other))
    assert len(expand_rows(load_config(fine))["other"]) == 2
    other["rows"][0]["evaluation"] = {"in_sample": "chat", "proxy": ["finance"], "oos": ["news"]}
    with pytest.raises(ConfigError, match=r"'finance' is proxy to '.*seed-0', but oos in study 'finance_mix'"):
        load_config(changed((["studies", "other"], other)))


def test_drift_of_an_sae_starts_from_one_corpus_in_every_study():
    rows = [{"hook": "resid_post.19", "mix": "static"}]
    other = RAW["studies"]["finance_mix"] | {"rows": rows}
    other |= {"evaluation": {"in_sample": ["finance", "chat"], "oos": ["news"]}}
    with pytest.raises(ConfigError, match=r"'finance' stands first, .* but 'chat' in study 'finance_mix'; choose one"):
        load_config(changed((["studies", "other"], other)))
