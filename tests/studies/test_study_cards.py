"""Pages of run cards: what differs stands on them, what is private stays away, text is text."""

from html.parser import HTMLParser

import pandas as pd
import pytest
from test_runcard import complete_card

from atlas.runcard import write_run_card
from atlas.studies.cards import differing_settings, time_by_rule, write_cards, write_difference

IDS = ("model/resid_post.1/chat/topk/seed-0", "model/resid_post.1/chat/topk/seed-1")
EVIL = "<script>alert(1)</script> & Söhne"


class Text(HTMLParser):
    """The text of a page, and the names of its elements."""

    def __init__(self, page: str):
        super().__init__()
        self.parts, self.tags = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.parts.append(data)


@pytest.fixture
def cards(tmp_path):
    paths = {}
    for number, sae_id in enumerate(IDS):
        card = complete_card()
        card["seed"] = number
        card["optimisation"]["lr"] = [0.001, 0.0005][number]
        card["model"]["licence"] = EVIL
        paths[sae_id] = tmp_path / f"{number}.yaml"
        write_run_card(paths[sae_id], card)
    return paths


def test_pages_say_what_differs_and_withhold_the_recipe(cards, tmp_path):
    write_cards("study", cards, tmp_path / "none", tmp_path / "full.html", tmp_path / "public.html")
    full, public = (Text((tmp_path / name).read_text()) for name in ("full.html", "public.html"))
    for page in (full, public):
        assert "script" not in page.tags
        assert EVIL in page.parts
    differing = full.parts[full.parts.index("run") : full.parts.index("Cost by stage")]
    assert {"optimisation.lr", "0.001", "0.0005", "seed"} <= set(differing)
    assert "sae.k" not in differing
    assert ", optimisation, " in public.parts[public.parts.index("withheld") + 2]
    assert "0.0005" not in public.parts
    assert "warmup_steps" not in public.parts


def test_two_runs_are_compared_field_by_field(cards, tmp_path):
    write_difference(list(cards), list(cards.values()), tmp_path / "page.html")
    parts = Text((tmp_path / "page.html").read_text()).parts
    assert "2 fields differ; everything else on the two cards is the same." in parts
    assert [part for part in parts if part in ("seed", "optimisation.lr")] == ["optimisation.lr", "seed"]


def test_a_setting_that_one_card_lacks_differs():
    table = differing_settings({"a": {"k": "4", "lr": "1"}, "b": {"k": "4"}})
    assert table.to_dict("records") == [{"run": "a", "lr": "1"}, {"run": "b", "lr": ""}]


def test_time_by_rule_adds_up(tmp_path):
    for rule, name, seconds in (("train", "a", 10), ("train", "b", 20), ("harvest", "c", 5)):
        (tmp_path / rule).mkdir(exist_ok=True)
        columns = {"s": [seconds], "cpu_time": [2 * seconds], "max_rss": [seconds]}
        pd.DataFrame(columns).to_csv(tmp_path / rule / f"{name}.tsv", sep="\t", index=False)
    assert time_by_rule(tmp_path).to_dict("records") == [
        {"rule": "train", "jobs": 2, "seconds": 30, "processor seconds": 60, "peak MiB": 20},
        {"rule": "harvest", "jobs": 1, "seconds": 5, "processor seconds": 10, "peak MiB": 5},
    ]


def test_the_audit_of_a_reading_is_a_table_with_signs_that_are_explained(tmp_path):
    card = complete_card()
    stated = {"reading": "as stated", "fvu": 0.3, "l0": 32.0, "less": None, "gain": 1.01}
    other = {"reading": EVIL, "fvu": 0.7, "l0": 16.0, "less": [-0.4, -0.45, -0.35], "gain": None}
    audit = {"hook": "resid_post.1", "n_rows": 4075, "n_documents": 12, "stated": stated, "others": [other]}
    found = {}
    for name, better in (("sound", None), ("wrong", other)):
        write_run_card(tmp_path / "card.yaml", card | {"reading_audit": audit | {"better": better, "nearest": None}})
        write_cards("s", {IDS[0]: tmp_path / "card.yaml"}, tmp_path, tmp_path / "full.html", tmp_path / "public.html")
        found[name] = Text((tmp_path / "full.html").read_text())
    assert "script" not in found["sound"].tags and EVIL in found["sound"].parts
    assert "+0.400 [+0.350, +0.450]" in found["sound"].parts, "more is left unexplained"
    lead = next(part for part in found["sound"].parts if "4,075 stored rows of 12 documents" in part)
    assert "No other reading explains the rows better" in lead
    assert any(f"Speaks for another reading: {EVIL}" in part for part in found["wrong"].parts)
    assert "outcomes of training" in found["sound"].parts
