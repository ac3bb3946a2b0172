"""Pages from files: what they hold, what is refused, and how large they are."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup
from site_scene import ATTACKS, BY_TOKENS, DENSE, GROUP, HOOK, HOSTILE, N_LATENTS, SETTINGS, SILENT, SiteScene

from atlas.autointerp.examples import nearest_latents
from atlas.card_fields import differences
from atlas.codes.encode import open_dictionaries
from atlas.config.study import Taxonomy
from atlas.errors import EvaluationError
from atlas.files import read_json, write_json
from atlas.site.latent import ContextGroup, Line, fewer_lines
from atlas.site.numbers import percent, short
from atlas.site.pages import write_data
from atlas.site.run import SaePageContext, _scene, build_sae_pages, export_neuronpedia

SAE = f"saes/{GROUP}/seed-0"


def test_every_latent_has_a_page_of_less_than_20_kib(site):
    pages = sorted((site / SAE / "latents").glob("*.html"))
    assert len(pages) == N_LATENTS
    assert max(page.stat().st_size for page in pages) < 20 * 1024


def test_page_that_would_be_larger_says_how_many_contexts_it_lacks(scene, tmp_path):
    scene.site, kept = tmp_path, scene.site
    many = SETTINGS.model_copy(update={"top_contexts": 40, "contexts_per_stratum": 30, "window_tokens": 30})
    try:
        scene.build(seeds=(0,), settings=many)
    finally:
        scene.site = kept
    pages = [page.read_text() for page in sorted((tmp_path / SAE / "latents").glob("*.html"))]
    assert max(len(page.encode()) for page in pages) <= 20 * 1024
    (dense,) = (page for page in pages if f"Latent {DENSE} <" in page)
    left_out = [int(number) for number in re.findall(r"(\d+) more would not fit into 20 KiB", dense)]
    assert len(left_out) == 1 + SETTINGS.strata
    shown = dense.split('id="test"')[0].count("<li>")
    assert shown + sum(left_out) == 40 + 30 * SETTINGS.strata


def test_fewer_lines_take_from_the_largest_group_and_leave_one():
    line = Line("chat", "1", Markup("x" * 100))
    groups = [ContextGroup("a", "", [line] * 5), ContextGroup("b", "", [line] * 2)]
    assert [len(group.lines) for group in fewer_lines(groups, 150)] == [4, 1]
    assert [(len(group.lines), group.left_out) for group in fewer_lines(groups, 10**6)] == [(1, 4), (1, 1)]


def test_no_outcome_of_an_sae_stands_without_what_was_learnt(site):
    page, index = (site / SAE / "index.html").read_text(), (site / "index.html").read_text()
    heading = re.search(r"<h1>.*?</h1>", page, re.DOTALL)[0]
    assert "learnt untested" in heading and "learnt untested" in index
    assert "Beside its twins" not in page


def test_a_page_has_each_measure_beside_the_best_twin(scene, tmp_path):
    measure = {"value": 0.8, "best_twin": "near_decoder", "best_value": 0.7, "better_by": 0.1}
    measures = {"kl": measure | {"interval": [0.05, 0.15], "learnt": "yes"}}
    sae_id = f"{GROUP}/seed-0"
    write_json(tmp_path / "t", {"sae_id": sae_id, "corpora": {"chat": {"learnt": "yes", "measures": measures}}})
    files = dataclasses.replace(scene.results(0), twins=tmp_path / "t")
    place = SaePageContext(HOOK, 0, ("s",), (0,))
    build_sae_pages(scene.inputs(0), files, place, SETTINGS, Taxonomy(), tmp_path / "pages")
    page = (tmp_path / "pages/index.html").read_text()
    assert "learnt yes" in re.search(r"<h1>.*?</h1>", page, re.DOTALL)[0]
    row = re.search(r'<tr><th scope="row">kl</th>.*?</tr>', page)[0]
    shown = [short(number) for number in (0.8, 0.7, 0.1, 0.05, 0.15)]
    assert all(text in row for text in (*shown, "near decoder", "yes"))
    assert "learnt untested" in page  # on corpora on which it was not held against twins
    assert read_json(tmp_path / "pages/line.json")["learnt"] == "yes"


def test_twins_of_another_sae_are_refused(scene, tmp_path):
    write_json(tmp_path / "t", {"sae_id": "other", "corpora": {}})
    files = dataclasses.replace(scene.results(0), twins=tmp_path / "t")
    with pytest.raises(EvaluationError, match=r"t: is of SAE 'other', expected"):
        build_sae_pages(
            scene.inputs(0), files, SaePageContext(HOOK, 0, ("s",), (0,)), SETTINGS, Taxonomy(), tmp_path / "pages"
        )


def test_a_page_says_why_a_latent_has_its_outcome(site):
    said = {latent: (site / SAE / f"latents/{latent}.html").read_text() for latent in (SILENT, DENSE, HOSTILE)}
    assert "It never fires in 1,200 tokens, too few to call it dead." in said[SILENT]
    assert "of the tokens of chat; above 10 % is too often" in said[DENSE]
    assert "where it is silent, but its nearest latents fire" in said[HOSTILE]
    assert "How its label was tested" not in said[DENSE]


def test_a_page_says_what_a_latent_does_beside_its_nulls(site):
    said = {latent: (site / SAE / f"latents/{latent}.html").read_text() for latent in range(N_LATENTS)}
    assert all("What it does" in text for text in said.values())
    assert "Beyond a random direction. Without it, predictions where it fires move by 0.250 nats" in said[HOSTILE]
    assert "No effect beyond a random direction." in said[DENSE]
    assert "Not measured: never fires." in said[SILENT]
    assert "the sample of latents that were does not hold it" in said[N_LATENTS - 1]
    assert "latent 1, which fires as often" in said[DENSE]
    assert "no twin was given" in said[DENSE]
    assert "plain words" in said[DENSE]
    assert said[DENSE].count("<polyline") == 2
    assert "on other documents; random directions: 0.0625" in said[DENSE]
    # Its KL is not beyond a random direction's: the page says what is.
    by_tokens = "their logits lose 0.750 without it, 0.0312 without the random direction."
    assert [latent for latent in range(N_LATENTS) if by_tokens in said[latent]] == [BY_TOKENS]


def test_texts_of_effects_are_shown_and_never_acted_on(site):
    text = (site / SAE / f"latents/{HOSTILE}.html").read_text().split('id="effects"')[1].split('id="test"')[0]
    for attack in ("<script", "<img", "<b onclick", "<b>there", "\u202e", "\x1b"):
        assert attack not in text
    assert "&lt;script&gt;x()&lt;/script&gt;" in text
    assert "&lt;img src=x onerror=&gt;" in text
    assert "the state overflows &lt;b&gt;there" in text
    assert "⟨U+202E⟩" in text


def test_effects_of_another_sae_are_refused(tmp_path):
    scene = SiteScene(tmp_path)
    other = scene.effects(1)
    inputs = dataclasses.replace(scene.inputs(0), effects=other)
    with pytest.raises(EvaluationError, match=r"effects\.parquet: is of an SAE with hash"):
        build_sae_pages(
            inputs, scene.results(0), SaePageContext(HOOK, 0, (), ()), SETTINGS, Taxonomy(), tmp_path / "pages"
        )


def test_without_labels_pages_say_so_and_outcomes_are_those_of_firing(scene, tmp_path):
    scene.site, kept = tmp_path, scene.site
    try:
        scene.build(labels=False, seeds=(0,), settings=SETTINGS.model_copy(update={"latents_per_sae": 5}))
    finally:
        scene.site = kept
    pages = sorted((tmp_path / SAE / "latents").glob("*.html"))
    assert len(pages) == 5
    text = (tmp_path / SAE / "latents-data.js").read_text().removeprefix("var atlasLatents=").removesuffix(";\n")
    data = json.loads(text)
    assert data["page"] == sorted(int(page.stem) for page in pages)
    outcomes = [data["outcomes"][number] for number in data["outcome"]]
    assert (outcomes[SILENT], outcomes[DENSE], outcomes[0]) == ("untested", "noisy", "unscored")
    assert "no label" in pages[0].read_text()
    assert "5, drawn by chance, have a page" in (tmp_path / SAE / "index.html").read_text()


def test_results_of_another_sae_are_refused(tmp_path):
    scene = SiteScene(tmp_path)
    shutil.copy(scene.sae(1) / "labels.parquet", scene.sae(0) / "labels.parquet")
    with pytest.raises(EvaluationError, match=r"labels\.parquet: is of an SAE with hash"):
        scene.build(seeds=(0,))
    shutil.copy(scene.sae(1) / "metrics.json", scene.sae(0) / "metrics.json")
    with pytest.raises(EvaluationError, match=r"metrics\.json: is of SAE '.*seed-1', expected '.*seed-0'"):
        scene.build(seeds=(0,))
    assert not (scene.site / SAE).exists()


def test_latents_of_the_random_dictionary_have_pages_beside_the_others(site, scene):
    """Drawn from those that fire; what they are, their labels and their directions are the random dictionary's."""
    pages = sorted((site / SAE / "random").glob("*.html"), key=lambda path: int(path.stem))
    assert len(pages) == SETTINGS.random_latents == 4
    assert str(SILENT) not in {path.stem for path in pages}
    listed = (site / SAE / "index.html").read_text().split('id="random"')[1]
    found = _scene(scene.inputs(0), SaePageContext(HOOK, 0, (), ()), SETTINGS, "random")
    own = open_dictionaries(scene.sae(0), [scene.folder / "chat/train-000.h5"], HOOK, 0)["random"]
    nearest, _ = nearest_latents(own.W_dec.numpy(), SETTINGS.neighbours)
    np.testing.assert_array_equal(found.nearest, nearest)
    for path in pages:
        text, latent = path.read_text(), int(path.stem)
        assert f"Latent {latent} of the random dictionary: nothing was learnt here" in text
        assert f'href="random/{latent}.html"' in listed
        assert len(text.encode()) < 20 * 1024
        assert "In other seeds" not in text
        assert "&lt;script&gt;attacked" in text
        assert "<script>attacked" not in text
        density = found.tables.at_home.density[latent]
        assert f"{percent(density)} of tokens" in text
    assert found.tables.at_home.density.equals(
        pd.read_parquet(scene.sae(0) / "latents.parquet")
        .query("dictionary == 'random' and corpus == 'chat'")
        .set_index("latent")
        .density
    )


def test_without_codes_of_the_random_dictionary_it_has_no_pages(scene, tmp_path):
    place = SaePageContext(HOOK, 0, (), ())
    none = SETTINGS.model_copy(update={"random_latents": 0})
    for name, settings, random in (("none", SETTINGS, False), ("zero", none, True)):
        target = tmp_path / name
        build_sae_pages(scene.inputs(0, random=random), scene.results(0), place, settings, Taxonomy(), target)
        assert not (target / "random").exists()
        assert 'id="random"' not in (target / "index.html").read_text()


def test_pages_name_the_model(site):
    first = (site / "index.html").read_text()
    assert "<small>tiny: 2 dictionaries" in first
    assert "<small>tiny</small>" in first
    page = (site / SAE / "index.html").read_text()
    assert "<h1>tiny · resid_post.0 · chat · topk · seed 0" in page
    assert "<title>tiny · resid_post.0" in page
    assert "tiny · resid_post.0" in (site / SAE / "latents/0.html").read_text()


def test_latents_as_neuronpedia_reads_them(scene, tmp_path):
    export_neuronpedia(scene.inputs(0), SaePageContext(HOOK, 0, (), ()), SETTINGS, tmp_path / "batches")
    batch = json.loads((tmp_path / "batches/batch-0.json").read_text())
    assert (batch["model_id"], batch["layer"]) == ("tiny", 0)
    assert [own["feature_index"] for own in batch["features"]] == list(range(N_LATENTS))
    own, silent = batch["features"][HOSTILE], batch["features"][SILENT]
    assert own["frac_nonzero"] == len(ATTACKS) * 20 / 2400
    first = own["activations"][0]
    assert max(first["values"]) == first["bin_max"] == 20
    assert "".join(token for act in own["activations"] for token in act["tokens"]).count("<script>x()</script>") == 1
    assert len(own["pos_str"]) == len(own["pos_values"]) == 10
    assert sum(own["logits_hist_data_bar_heights"]) == 262
    assert (silent["activations"], silent["frac_nonzero"], silent["freq_hist_data_bar_heights"]) == ([], 0, [])


def test_data_is_ascii_whatever_it_holds(tmp_path):
    write_data(tmp_path / "x.js", "x", {"a": ["\u2028</script>\u202e", 'é"\\', None, 1.5]})
    text = (tmp_path / "x.js").read_text(encoding="ascii")
    assert json.loads(text.removeprefix("var x=").removesuffix(";\n"))["a"][0] == "\u2028</script>\u202e"


def test_what_differs_between_two_run_cards():
    first = {"seed": 0, "sae": {"k": 32, "n": None}, "phases": [{"until": 1.0}]}
    second = {"seed": 1, "sae": {"k": 32}, "phases": [{"until": 1.0}]}
    assert differences(first, second) == [("seed", "0", "1"), ("sae.n", "none", None)]
