"""From codes to the table of latents and to the tables of a study, and what is refused on the way."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from latent_scene import LENGTH, random_firings, sentence_model, write_codes
from shards import make_shard

from atlas.autointerp.planted import RANDOM
from atlas.autointerp.planted_coherence import write_planted_coherence
from atlas.codes.encode import identity_of
from atlas.codes.store import Codes
from atlas.config.autointerp import Autointerp
from atlas.config.latents import Latents
from atlas.corpora.encoding import tokenizer_sha256
from atlas.errors import EvaluationError, StoreError
from atlas.files import write_json
from atlas.latents.embedded_windows import embed_windows
from atlas.latents.embedder import SentenceEmbedder, embedder_sha256, prepare_embedder
from atlas.latents.run import LatentInputs, LatentSettings, run_latents
from atlas.latents.study_table import write_health_table, write_latents_table
from atlas.models.load import load_tokenizer
from atlas.models.prepare import prepare_model
from atlas.training.sae import Sae, save_sae
from tiny import describe_model, tiny_llama

SAE_ID = "tiny/resid_post.0/chat/topk/seed-0"
ROLES = {"chat": "in_sample", "wiki": "proxy", "news": "oos"}
CORPORA = {SAE_ID: list(ROLES)}
N_LATENTS, NEWLINE, QUIET = 12, 0, 1
SETTINGS = LatentSettings(Latents(min_tokens=500, top_contexts=4, window_tokens=3), 10**6, 100)


class Scene:
    """Latent 0 fires on newlines, latent 1 is silent on news, the others fire at random, one at none."""

    def __init__(self, folder: Path, model: Path):
        self.folder, self.model, self.sae = folder, model, folder / "saes" / SAE_ID
        generator = torch.Generator().manual_seed(0)
        W_dec = torch.nn.functional.normalize(torch.randn(N_LATENTS, 16, generator=generator), dim=1)
        sae = Sae("topk", W_dec.T.contiguous(), torch.zeros(N_LATENTS), W_dec, torch.zeros(16), k=4)
        save_sae(sae, self.sae, {"model_name": "tiny", "hook_name": "resid_post.0"})
        (folder / "chat").mkdir()
        make_shard(folder / "chat/train-000.h5", 4)
        self.files = {kind: {} for kind in ("sae", "random")}
        for number, corpus in enumerate(ROLES):
            for kind in self.files:
                self.write(corpus, kind, number)
        self.metrics = folder / "metrics.json"
        corpora = {name: {"atlas": {"l0": 4 + i, "kl": None}} for i, name in enumerate(ROLES)}
        self.metrics.write_text(json.dumps({"sae_id": SAE_ID, "corpora": corpora}))
        self.embedder, self.windows = None, {}

    def write(self, corpus: str, kind: str, text: int, n_contexts: int = 40, **identity) -> None:
        newline = 6 + sorted(_alphabet()).index("Ċ")
        tokens = np.random.default_rng(text).integers(6, 262, n_contexts * LENGTH)
        tokens[np.random.default_rng(text).random(len(tokens)) < 0.1] = newline
        rates = [0, 0.1, 0, *[0.1] * (N_LATENTS - 3)]
        if corpus == "news":
            rates[QUIET] = 0
        dense = random_firings(tokens, rates, text)
        dense[:, NEWLINE] = tokens == newline
        known = {
            "dictionary": kind,
            **identity_of(self.sae, "resid_post.0", 0),
            "tokenizer_sha256": tokenizer_sha256(self.model),
            "corpus": corpus,
            "corpus_fingerprint": f"text of {corpus}",
        }
        path = self.folder / "codes" / kind / f"{corpus}.h5"
        counted = np.arange(len(tokens)) % LENGTH > 0
        write_codes(path, dense, tokens, counted=counted, **(known | identity))
        self.files[kind][corpus] = path

    def embed(self, width: int = 3) -> None:
        """Prepare a sentence encoder and embed the windows of every corpus, as their own rule does."""
        if self.embedder is None:
            self.embedder = self.folder / "embedder"
            prepare_embedder(sentence_model(self.folder / "sentences"), None, self.embedder, self.folder / "lock")
        embedder = SentenceEmbedder.load(self.embedder, torch.device("cpu"))
        for name, path in self.files["sae"].items():
            codes, self.windows[name] = Codes.open(path, {}), self.folder / f"{name}-windows.h5"
            shard = SimpleNamespace(
                identity=codes.identity,
                context_length=LENGTH,
                **{key: getattr(codes, key) for key in ("tokens", "document", "counted")},
            )
            tokenizer, sha256 = load_tokenizer(self.model), embedder_sha256(self.embedder)
            embed_windows([shard], tokenizer, embedder, sha256, width, self.windows[name])

    def run(self, settings=SETTINGS, roles=ROLES) -> tuple[pd.DataFrame, dict]:
        table, summary = self.folder / "latents.parquet", self.folder / "latents.json"
        run_latents(
            LatentInputs(
                self.model,
                self.sae,
                [self.folder / "chat/train-000.h5"],
                self.files["sae"],
                self.files["random"],
                self.metrics,
                self.embedder,
                self.windows,
            ),
            hook="resid_post.0",
            seed=0,
            roles=roles,
            settings=settings,
            table=table,
            summary=summary,
        )
        return pd.read_parquet(table), json.loads(summary.read_text())


def _alphabet():
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel.alphabet()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    prepare_model("tiny", describe_model(tiny_llama(folder / "llama"), 4), None, folder / "model", folder / "lock")
    return folder / "model"


@pytest.fixture
def scene(tmp_path, model):
    return Scene(tmp_path, model)


def test_one_row_per_latent_corpus_and_dictionary(scene):
    table, summary = scene.run()
    assert len(table) == N_LATENTS * 3 * 2
    assert not table.duplicated(["latent", "corpus", "dictionary"]).any()
    assert list(table.columns[:4]) == ["dictionary", "corpus", "role", "latent"]
    ours = table[table.dictionary == "sae"].set_index(["corpus", "latent"])
    newline = ours.loc[("chat", NEWLINE)]
    assert (newline.mass_newline, newline.top_token, newline.formatting_artefact) == (1, "\n", True)
    assert newline.lift_newline == pytest.approx(1 / summary["corpora"]["chat"]["base_rates"]["newline"])
    assert ours.loc[("news", QUIET), "newly_silent"]
    assert ours.loc[("news", QUIET), "status"] == "untested"
    assert not ours.loc[("wiki", QUIET), "newly_silent"]
    assert pd.isna(ours.loc[("chat", QUIET), "log_rate_ratio"])
    silent = ours.loc[("chat", 2)]
    assert silent.n_firings == 0 and pd.isna(silent.mass_word) and pd.isna(silent.formatting_artefact)
    assert silent.density_low == 0 and 0 < silent.density_high < 0.01
    fired = ours[ours.n_firings > 0]
    assert ((fired.density_low < fired.density) & (fired.density < fired.density_high)).all()
    np.testing.assert_allclose(fired.filter(regex="^mass_").sum(axis=1), 1)


def test_summary_has_both_dictionaries_drift_and_changes(scene):
    _, summary = scene.run()
    assert summary["sae_id"] == SAE_ID
    assert summary["reasons"] == {"coherence": "no latents.embedder is configured"}
    news = summary["corpora"]["news"]
    assert set(news["sae"]) == set(news["random"])
    assert news["sae"]["n_alive"] == N_LATENTS - 2
    assert news["sae"]["drift"]["newly_silent_share"]["value"] == pytest.approx(1 / (N_LATENTS - 1))
    assert news["metric_changes"]["l0"]["change"] == 2
    assert "drift" not in summary["corpora"]["chat"]["sae"]
    low, high = news["sae"]["mass_word_interval"]
    assert low < news["sae"]["mass_word"] < high


def test_coherence_with_an_embedder(scene):
    scene.embed()
    table, summary = scene.run()
    assert table.coherence[table.n_contexts >= 2].notna().all()
    assert table.coherence[table.n_contexts < 2].isna().all()
    assert summary["reasons"] == {}
    assert summary["corpora"]["chat"]["sae"]["coherence_tested"] == N_LATENTS - 1
    again, _ = scene.run()
    pd.testing.assert_frame_equal(table, again)


def planted(scene, **settings) -> dict:
    """planted.json of the scene's SAE."""
    target = scene.folder / "planted.json"
    write_planted_coherence(
        scene.model,
        scene.sae,
        scene.files["sae"],
        scene.embedder,
        scene.windows,
        "resid_post.0",
        0,
        ROLES,
        Autointerp(**{"window_tokens": 4} | settings),
        SETTINGS.latents,
        target,
    )
    return json.loads(target.read_text())


def test_planted_latents_stand_beside_those_of_the_same_text(scene):
    assert planted(scene)["reasons"] == {"coherence": "no latents.embedder is configured"}
    scene.embed()
    found = planted(scene)
    assert (found["sae_id"], list(found["corpora"]), found["reasons"]) == (SAE_ID, list(ROLES), {})
    for by_class in found["corpora"].values():
        assert by_class[RANDOM]["n_tested"] > 0
        low, high = by_class[RANDOM]["coherent_share_interval"]
        assert low <= by_class[RANDOM]["coherent_share"] <= high


def test_without_room_for_a_window_nothing_is_planted_and_the_reason_is_kept(scene):
    scene.embed()
    found = planted(scene, window_tokens=LENGTH + 1)
    assert found["corpora"] == {name: {} for name in ROLES}
    assert f"no document has {LENGTH + 1} tokens in one context" in found["reasons"]["planted"]


def test_planted_latents_in_windows_of_another_corpus_are_refused(scene):
    scene.embed()
    scene.windows["wiki"] = scene.windows["news"]
    with pytest.raises(EvaluationError, match=r"news-windows\.h5: corpus is 'news', but the codes have 'wiki'"):
        planted(scene)


def test_windows_of_something_else_are_refused(scene):
    scene.embed(width=4)
    with pytest.raises(EvaluationError, match=r"chat-windows\.h5: width is 4, but the codes have 3; delete this file"):
        scene.run()
    scene.embed()
    scene.windows["wiki"] = scene.windows["news"]
    with pytest.raises(EvaluationError, match=r"news-windows\.h5: corpus is 'news', but the codes have 'wiki'"):
        scene.run()
    del scene.windows["wiki"]
    with pytest.raises(EvaluationError, match="corpus 'wiki' has no embedded windows"):
        scene.run()


def test_a_damaged_file_of_windows_is_named(scene):
    scene.embed()
    whole = scene.windows["chat"].read_bytes()
    scene.windows["chat"].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EvaluationError, match=r"chat-windows\.h5: missing, truncated or altered"):
        scene.run()


def test_codes_of_another_sae_are_refused(scene):
    scene.write("wiki", "sae", 1, sae_sha256="other")
    with pytest.raises(StoreError, match=r"sae/wiki\.h5: sae_sha256 is 'other', expected .* belong to something else"):
        scene.run()


def test_codes_of_the_other_dictionary_are_refused(scene):
    scene.files["random"] = scene.files["sae"]
    with pytest.raises(StoreError, match="dictionary is 'sae', expected 'random'"):
        scene.run()


def test_random_dictionary_of_another_seed_is_refused(scene):
    scene.write("wiki", "random", 1, seed=1)
    with pytest.raises(StoreError, match=r"random/wiki\.h5: seed is 1, expected 0"):
        scene.run()


def test_metrics_of_another_sae_are_refused(scene):
    scene.metrics.write_text(json.dumps({"sae_id": "a/b", "corpora": {}}))
    with pytest.raises(EvaluationError, match=r"metrics\.json: is of 'a/b'"):
        scene.run()


def test_the_same_text_twice_is_refused(scene):
    for kind in scene.files:
        scene.write("news", kind, 0, corpus_fingerprint="text of chat")
    with pytest.raises(EvaluationError, match="corpora 'chat' and 'news' are the same text"):
        scene.run()


def test_too_few_tokens_are_refused_with_their_number(scene):
    scene.write("wiki", "sae", 1, n_contexts=10)
    with pytest.raises(EvaluationError, match=r"corpus 'wiki' has 190 counted tokens, latents\.min_tokens is 500"):
        scene.run()


def test_tables_of_a_study(scene):
    scene.run()
    files = {SAE_ID: scene.folder / "latents.parquet"}
    write_latents_table("s", files, CORPORA, scene.folder / "s_latents.parquet")
    table = pd.read_parquet(scene.folder / "s_latents.parquet")
    assert len(table) == N_LATENTS * 6
    assert (table.study.unique(), table.seed.unique()) == (["s"], [0])
    write_latents_table("s", files, {SAE_ID: ["news"]}, scene.folder / "s_latents.parquet")
    assert set(pd.read_parquet(scene.folder / "s_latents.parquet").corpus) == {"news"}
    summaries, ends = {SAE_ID: scene.folder / "latents.json"}, scene.folder / "planted.json"
    topic = {"n_tested": 12, "coherent_share": 0.75, "coherent_share_interval": [0.4, 0.9]}
    write_json(
        ends, {"sae_id": SAE_ID, "corpora": {name: {"topic": topic} for name in ROLES}, "reasons": {"planted": "few"}}
    )
    write_health_table("s", summaries, {SAE_ID: ends}, CORPORA, scene.folder / "s_health.csv")
    health = pd.read_csv(scene.folder / "s_health.csv")
    assert (health.planted_topic_coherent_share == 0.75).all()
    assert (health.planted_topic_coherent_share_interval_high == 0.9).all()
    assert list(health.corpus) == list(ROLES)
    for name in ("clusters_per_alive", "artefact_share", "artefact_share_interval_low", "dense_share"):
        assert health[name].notna().all()
        assert health[f"random_{name}"].notna().all()
    assert health.drift_js_divergence_z.notna().tolist() == [False, True, True]
    assert health.change_l0_value.fillna(0).tolist() == [0, 1, 2]
    assert health.coherence.isna().all()
    assert json.loads(health.reasons[0]) == {"coherence": "no latents.embedder is configured", "planted": "few"}


def test_table_of_another_sae_is_refused(scene):
    scene.run()
    other = SAE_ID.replace("seed-0", "seed-1")
    with pytest.raises(EvaluationError, match=r"latents\.parquet: is of SAE 'tiny/.*seed-0', expected .*seed-1"):
        write_latents_table("s", {other: scene.folder / "latents.parquet"}, CORPORA, scene.folder / "s.parquet")
    ends = {}
    for name in (SAE_ID, other):
        ends[name] = scene.folder / f"{name[-1]}.json"
        write_json(ends[name], {"sae_id": name, "corpora": {corpus: {} for corpus in ROLES}, "reasons": {}})
    with pytest.raises(EvaluationError, match=r"latents\.json: is of SAE"):
        write_health_table(
            "s", {other: scene.folder / "latents.json"}, {other: ends[other]}, CORPORA, scene.folder / "s.csv"
        )
    with pytest.raises(EvaluationError, match=r"1\.json: is of SAE"):
        write_health_table(
            "s", {SAE_ID: scene.folder / "latents.json"}, {SAE_ID: ends[other]}, CORPORA, scene.folder / "s.csv"
        )
    assert pq.read_schema(scene.folder / "latents.parquet").metadata[b"sae_id"].decode() == SAE_ID
