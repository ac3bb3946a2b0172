"""Sheets for blind readers, the files that they save, and what is made of their votes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from site_scene import ATTACKS, GROUP, HOOK, HOSTILE, N_LATENTS, SILENT, SiteScene

from atlas.blind_reading.agreement import MEDIAN, LabelFiles, judged_items, reading_table
from atlas.blind_reading.items import ReadSae, make_sheet
from atlas.blind_reading.sheet import read_key, write_sheet
from atlas.blind_reading.votes import VOTES, read_votes
from atlas.config.autointerp import Autointerp
from atlas.config.reading import Reading
from atlas.errors import DamagedFileError, EvaluationError
from atlas.files import read_json, write_json

SETTINGS = Reading(latents=10, random_latents=6, contexts=4, window_tokens=20)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> SiteScene:
    return SiteScene(tmp_path_factory.mktemp("reading"))


@pytest.fixture(scope="module")
def saes(scene) -> list[ReadSae]:
    return [
        ReadSae(
            f"{GROUP}/seed-{seed}",
            scene.sae(seed),
            HOOK,
            seed,
            scene.model,
            scene.codes_of(seed),
            scene.codes_of(seed, "random"),
        )
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def written(saes, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sheet")
    write_sheet("sweep", saes, SETTINGS, folder / "page.html", folder / "key.json")
    return folder / "page.html", folder / "key.json"


def save(path: Path, sheet, votes, change=None) -> Path:
    given = {"study": sheet.study, "sheet": sheet.sheet_id, "reader": "ada"}
    given["votes"] = {str(number): {"vote": vote, "name": ""} for number, vote in votes.items()}
    path.write_text(json.dumps(given | (change or {})))
    return path


def test_items_are_drawn_of_each_sae_and_never_silent(saes):
    sheet = make_sheet("sweep", saes, SETTINGS)
    drawn = [(item.sae_id, item.dictionary, item.latent) for item in sheet.items]
    assert len(set(drawn)) == len(drawn) == 16
    assert pd.Series([each[:2] for each in drawn]).value_counts().to_dict() == {
        (f"{GROUP}/seed-{seed}", kind): n for seed in (0, 1) for kind, n in (("sae", 5), ("random", 3))
    }
    assert SILENT not in {item.latent for item in sheet.items}
    assert [item.number for item in sheet.items] == list(range(1, 17))
    kinds = [item.dictionary for item in sheet.items]
    assert kinds != sorted(kinds) and kinds != sorted(kinds, reverse=True)


def test_twins_are_items_of_their_own_kind(scene, saes):
    twin = replace(saes[1], twin="frozen_decoder", random_codes={})
    sheet = make_sheet("sweep", [saes[0], twin], SETTINGS.model_copy(update={"twin_latents": 4}))
    kinds = pd.Series([(item.sae_id, item.dictionary) for item in sheet.items]).value_counts().to_dict()
    assert kinds == {
        (saes[0].sae_id, "sae"): 10,
        (saes[0].sae_id, "random"): 6,
        (twin.sae_id, "frozen_decoder"): 4,
    }
    without = make_sheet("sweep", [saes[0], twin], SETTINGS.model_copy(update={"twin_latents": 0}))
    assert {item.sae_id for item in without.items} == {saes[0].sae_id}


def test_sheet_is_the_same_at_every_call_and_another_with_another_seed(saes):
    first, again = (make_sheet("sweep", saes, SETTINGS) for _ in range(2))
    assert first == again
    other = make_sheet("sweep", saes, SETTINGS.model_copy(update={"seed": 1}))
    assert other.sheet_id != first.sheet_id
    assert make_sheet("another", saes, SETTINGS).sheet_id != first.sheet_id


def test_contexts_are_the_strongest_one_per_document(saes):
    every = Reading(latents=2 * (N_LATENTS - 1), random_latents=0, contexts=6, window_tokens=20)
    sheet = make_sheet("sweep", saes, every)
    hostile = next(n for n, item in enumerate(sheet.items) if item.latent == HOSTILE)
    assert len(sheet.contexts[hostile]) == len(ATTACKS)
    assert all(0 < len(lines) <= 6 for lines in sheet.contexts)


def test_page_tells_neither_kind_nor_latent_nor_runs_text_of_the_corpus(written):
    page, key = written
    text = page.read_text(encoding="utf-8")
    assert "<script>x()" not in text and "onerror=>" not in text
    assert GROUP not in text and "random" not in text.split("<body")[1].split("<script>")[0].replace("/random", "")
    assert 'data-item="16"' in text and "http" not in text.split("<body")[1]
    shares = {float(value) for value in pd.Series(text).str.extractall(r"data-[1-8]=([0-9.e-]+)")[0]}
    assert shares and max(shares) <= 1.0
    assert read_key(key).sheet_id in text


def test_changed_key_is_damaged(written, tmp_path):
    found = {name: value for name, value in read_json(written[1]).items() if name != "integrity"}
    found["items"][0]["latent"] += 1
    write_json(tmp_path / "key.json", found)
    with pytest.raises(DamagedFileError, match="do not belong to sheet"):
        read_key(tmp_path / "key.json")


def test_more_latents_than_fire_are_refused(saes):
    with pytest.raises(EvaluationError, match=r"11 of 12 latents .* asks for 12"):
        make_sheet("sweep", saes[:1], SETTINGS.model_copy(update={"latents": 12}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": "another"}, "study is 'another', expected 'sweep'"),
        ({"sheet": "0" * 16}, "votes are of another sheet"),
        ({"reader": " "}, "expected a name"),
        ({"votes": {"1": {"vote": "clear"}}}, "15 of 16 items have no vote"),
        ({"votes": []}, "expected a vote by number"),
    ],
)
def test_files_that_are_no_whole_reading_are_refused(written, tmp_path, change, message):
    sheet = read_key(written[1])
    path = save(tmp_path / "votes.json", sheet, {item.number: "clear" for item in sheet.items}, change)
    with pytest.raises(EvaluationError, match=message):
        read_votes([path], sheet)


def test_unknown_votes_items_and_readers_are_refused(written, tmp_path):
    sheet = read_key(written[1])
    votes = {item.number: "clear" for item in sheet.items}
    with pytest.raises(EvaluationError, match=r"item 3 has vote 'maybe', expected one of none, vague, clear"):
        read_votes([save(tmp_path / "a.json", sheet, votes | {3: "maybe"})], sheet)
    with pytest.raises(EvaluationError, match=r"votes on items \['17'\]"):
        read_votes([save(tmp_path / "b.json", sheet, votes | {17: "none"})], sheet)
    with pytest.raises(EvaluationError, match="reader 'ada' is in two files"):
        read_votes([save(tmp_path / f"{n}.json", sheet, votes) for n in "cd"], sheet)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(EvaluationError, match="expected keys study, sheet, reader, votes"):
        read_votes([tmp_path / "list.json"], sheet)


def planted(sheet, told, score):
    """Plant outcomes and scores of items, as `judged_items` returns them."""
    outcome = np.where(told, "good", "uninterpreted")
    numbers = [item.number for item in sheet.items]
    return pd.DataFrame({"outcome": outcome, "random_score": score, "token_correlation": np.nan}, index=numbers)


def values(table, measure, reader) -> pd.Series:
    return table[(table.measure == measure) & (table.reader == reader)].iloc[0]


def test_perfect_and_blind_measures_get_their_ends(written):
    sheet = read_key(written[1])
    is_sae = np.array([item.dictionary == "sae" for item in sheet.items])
    ranks = np.where(is_sae, VOTES.index("clear"), 0)
    votes = pd.DataFrame({"ada": ranks, "ben": ranks}, index=[item.number for item in sheet.items])
    table = reading_table(sheet, votes, planted(sheet, is_sae, ranks / 2))
    assert values(table, "kappa", "ada").value == 1
    assert values(table, "kappa_outcome", MEDIAN).value == 1
    assert values(table, "rank_correlation", "ada").value == pytest.approx(1)
    shares = table[(table.measure == "share_clear") & (table.reader == "ada")].set_index("dictionary")
    assert shares.value.to_dict() == {"random": 0, "sae": 1}
    assert shares.loc["sae", "low"] == pytest.approx(0.025 ** (1 / 10))  # Clopper–Pearson of 10 of 10
    above = values(table, "clear_above", MEDIAN)
    assert (above.compared_with, above.value, above.n) == ("random", 1, 16)
    # MOVER of 10 of 10 and 0 of 6: the two Clopper–Pearson ends, as distances at right angles.
    assert above.low == pytest.approx(1 - np.hypot(1 - 0.025 ** (1 / 10), 1 - 0.025 ** (1 / 6)))
    # An outcome that says the same of all latents knows nothing: chance agrees as well.
    table = reading_table(sheet, votes, planted(sheet, np.ones(16, bool), 0.5))
    assert values(table, "kappa_outcome", "ada").value == 0
    assert np.isnan(values(table, "rank_correlation", "ada").value)


def test_measures_do_not_depend_on_the_order_of_votes_and_have_intervals(written):
    sheet = read_key(written[1])
    generator = np.random.default_rng(0)
    numbers = [item.number for item in sheet.items]
    votes = pd.DataFrame({name: generator.integers(0, 3, 16) for name in ("ada", "ben", "cleo")}, index=numbers)
    judged = planted(sheet, generator.random(16) < 0.5, generator.random(16))
    table = reading_table(sheet, votes, judged)
    pd.testing.assert_frame_equal(table, reading_table(sheet, votes.sample(frac=1, random_state=1), judged))
    assert set(table.reader) == {"ada", "ben", "cleo", MEDIAN}
    assert (table.measure == "kappa").sum() == 3
    known = table[table.low.notna()]
    assert len(known) >= 8 and ((known.low <= known.value) & (known.value <= known.high)).all()


def test_median_reader_of_two_is_the_stricter_one(written):
    sheet = read_key(written[1])
    numbers = [item.number for item in sheet.items]
    votes = pd.DataFrame({"ada": [2] * 16, "ben": [0] * 8 + [2] * 8}, index=numbers)
    table = reading_table(sheet, votes, planted(sheet, np.ones(16, bool), 0.5))
    clear = table[(table.measure == "share_clear") & (table.reader == MEDIAN)]
    assert (clear.value * clear.n).sum() == 8


def test_labels_of_another_sae_are_refused(scene, written):
    sheet = read_key(written[1])
    files = {
        f"{GROUP}/seed-{seed}": LabelFiles(scene.sae(1 - seed), *(Path("unread.parquet") for _ in range(4)))
        for seed in (0, 1)
    }
    with pytest.raises(EvaluationError, match="which is gone"):
        judged_items(sheet, files, Autointerp())
