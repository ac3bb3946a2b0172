"""The model card: what it says, where it gets it, and that data stay data."""

import pytest
import yaml
from huggingface_hub import ModelCard
from trained import CARD, CORPUS, MODEL, random_sae, write_trained

from atlas.export.formats import export_sae
from atlas.export.model_card import escape, model_card
from atlas.export.source import read_trained
from atlas.runcard import public_card, read_run_card
from atlas.training.architectures import ARCHITECTURES


def card_text(folder, sae=None, **changes):
    return model_card(read_trained(write_trained(folder, sae or random_sae(), **changes)))


def cell(text, name):
    """The value beside a name in a table of two columns."""
    [row] = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return row.removeprefix(f"| {name} | ").removesuffix(" |")


def test_front_matter(tmp_path):
    folder = tmp_path / "export"
    export_sae(write_trained(tmp_path / "sae", random_sae()), "huggingface", folder)
    front = ModelCard.load(folder / "README.md").data.to_dict()
    assert front == {
        "library_name": "saelens",
        "license": "apache-2.0",
        "base_model": "someone/tiny",
        "tags": ["saelens", "sparse-autoencoder", "mechanistic-interpretability", "topk"],
    }
    assert (folder / "run_card.yaml").read_bytes() == (tmp_path / "sae/run_card.yaml").read_bytes()


def test_front_matter_of_a_model_that_the_hub_does_not_have(tmp_path):
    source = {"kind": "path", "path": "models/mine", "licence": "My Licence: v1"}
    model = MODEL | {"source": source, "licence": "My Licence: v1"}
    front = yaml.safe_load(card_text(tmp_path, model=model).split("---\n")[1])
    assert "base_model" not in front
    assert (front["license"], front["license_name"]) == ("other", "my-licence-v1")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_says_what_the_sae_is_and_what_came_out(tmp_path, architecture):
    text = card_text(tmp_path, random_sae(architecture))
    assert text.count("\n# ") == 1 and " sparse autoencoder of tiny at " in text
    assert cell(text, "Revision") == MODEL["revision"]
    assert cell(text, "SHA-256 of its weights") == MODEL["weights_sha256"]
    assert (cell(text, r"d\_model"), cell(text, "Dictionary size")) == ("24", "60")
    assert (cell(text, "Recipe"), cell(text, "Mix"), cell(text, "Seed")) == ("small", "chat", "7")
    assert cell(text, "Rows drawn") == "19200"
    assert cell(text, "Normalisation") == r"rows\_divided\_by 12.5; folded\_into\_weights True"
    sparsity = cell(text, "Sparsity")
    assert ("k = 20" in sparsity) == ("topk" in architecture)
    assert ("threshold 0.4" in sparsity) == ("batch_topk" in architecture)
    assert ("groups of 0.1, 0.25, 0.65" in sparsity) == (architecture == "matryoshka_batch_topk")
    corpora = text.split("## Texts it was trained on")[1].split("##")[0]
    for expected in ("CC-BY-4.0", "data/chat.jsonl", CORPUS["fingerprint"]["train"], "conversation"):
        assert expected in corpora
    outcomes = text.split("## Outcomes")[1].split("##")[0]
    assert r"| in\_sample | chat | 0.7654 | 4 | 0.02 |" in outcomes
    assert "| oos | news | 0.6543 | 4 | 0.05 |" in outcomes
    assert r"- few\_tokens: 19200 rows drawn" in text.split("## Warnings")[1]


def test_a_transcoder_names_both_hooks(tmp_path):
    text = card_text(tmp_path, random_sae("batch_topk", d_target=17))
    assert (cell(text, "Hook"), cell(text, "Target hook")) == (r"mlp\_in.3", r"mlp\_out.3")
    assert (cell(text, r"d\_model"), cell(text, r"d\_target")) == ("24", "17")
    assert r"predicts the rows of hook mlp\_out.3" in text
    assert '"mlp_in.3-to-mlp_out.3")  # from the hub' in text
    assert "transcoder" in yaml.safe_load(text.split("---\n")[1])["tags"]


def test_a_public_card_says_what_is_withheld(tmp_path):
    source = write_trained(tmp_path, random_sae())
    public = public_card(read_run_card(source / "run_card.yaml"))
    (source / "run_card.yaml").write_text(yaml.safe_dump(public))
    text = model_card(read_trained(source))
    for name in ("Recipe", "Mix", "Rows drawn", "Optimisation", "Seed"):
        assert cell(text, name) == "withheld"
    assert "withheld are: names, " in text
    assert "| oos | news | 0.6543 | 4 | 0.05 |" in text
    assert "small" not in text and "19200" not in text


def test_text_of_the_configuration_stays_text(tmp_path):
    hostile = "[x](http://evil) | **b** <script>alert(1)</script> `c` $y$ # h\n---\nbase_model: other/one\n# Title"
    corpora = {"chat": CORPUS | {"licence": hostile}}
    model = MODEL | {"licence": hostile}
    text = card_text(tmp_path, corpora=corpora, model=model, warnings=[hostile])
    assert "<script>" not in text and "[x](" not in text and "**b**" not in text
    assert text.count("\n# ") == 1  # the title alone
    assert yaml.safe_load(text.split("---\n")[1])["base_model"] == "someone/tiny"
    rows = [line for line in text.splitlines() if line.startswith("| chat |")]
    assert len(rows) == 1 and rows[0].replace("\\|", "").count("|") == 6
    assert "evil" in text


def test_escape():
    assert escape("a_b*c") == r"a\_b\*c"
    assert escape("two\n  lines") == "two lines"
    assert escape("<b> & c") == "&lt;b&gt; &amp; c"
    assert escape("x|y") == r"x\|y"
    assert escape(3) == "3"


def test_no_warnings_is_said(tmp_path):
    assert "Training gave none." in card_text(tmp_path, warnings=[])
    assert CARD["warnings"]
