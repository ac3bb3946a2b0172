"""The whole of probing on a tiny model and planted SAEs."""

import numpy as np
import pandas as pd
import pytest
import torch
from labelled_prompts import folder_of

from atlas.config.downstream import Probing
from atlas.corpora.encoding import make_encoder
from atlas.errors import EvaluationError, SourceError, StoreError
from atlas.files import write_json
from atlas.models.forward import capture
from atlas.probing import last_token
from atlas.probing.last_token import framed_ids, last_token_rows
from atlas.probing.prompts import make_probe_rows
from atlas.probing.rows import LabelledRows, read_facts, read_rows
from atlas.probing.run import encode_rows, over_datasets, probe_dataset
from atlas.probing.study_table import write_probing_table
from atlas.training.sae import Sae
from tiny import prepare_and_load, tiny_bert, tiny_llama

HOOKS = ["resid_post.0", "resid_post.2"]
SETTINGS = Probing(source={"kind": "path", "path": "x"}, datasets=None, ks=(1, 3), max_split_latents=4)


@pytest.fixture(scope="module", params=["llama", "bert"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "llama":
        return folder / "prepared", prepare_and_load(tiny_llama(folder / "llama"), folder / "prepared", 4)
    source = tiny_bert(folder / "bert")
    return folder / "prepared", prepare_and_load(source, folder / "prepared", 3, objective="embedding")


def test_rows_are_those_of_the_last_token_of_each_text_alone(model, monkeypatch):
    """Batched by length they are what a pass of its own gives; frames of the tokenizer do not count."""
    folder, loaded = model
    monkeypatch.setattr(last_token, "BATCH_TOKENS", 40)
    encoder, texts = make_encoder(folder, "plain"), ["one", "two and", "x", "six", "a longer text", "abc"]
    ids = framed_ids(encoder, texts, max_tokens=8)
    rows = last_token_rows(loaded, ids, HOOKS, n_after=len(encoder.suffix))
    for place, text in enumerate(texts):
        body = encoder.encode([text])[0][:-1][-8:]
        alone = torch.tensor([[*encoder.prefix, *body, *encoder.suffix]])
        position = len(encoder.prefix) + len(body) - 1
        for hook, values in capture(loaded, alone, HOOKS).items():
            torch.testing.assert_close(rows[hook][place], values[0, position], atol=1e-4, rtol=1e-3)


def test_rows_of_contexts_that_begin_alike_are_those_of_each_alone(model):
    """Also where one context is the beginning of the others, and where a group has a single one."""
    contexts = [[7, 8, 9, 10, 11], [7, 8, 9, 12], [20, 21, 22], [7, 8, 9], [7, 8, 9, 30, 31, 32]]
    alone = last_token_rows(model[1], contexts, HOOKS)
    shared = last_token_rows(model[1], contexts, HOOKS, alike=[[0, 3, 1, 4], [2]])
    for hook, rows in shared.items():
        torch.testing.assert_close(rows, alone[hook], atol=1e-4, rtol=1e-3)


def test_text_without_token_is_refused(model):
    with pytest.raises(SourceError, match="has no token"):
        framed_ids(make_encoder(model[0], "plain"), ["a", ""], 8)


def test_file_of_rows_round_trips(model, tmp_path):
    frame = pd.DataFrame(
        {"prompt": [f"{'good' if i % 2 else 'bad'} {i}" for i in range(60)], "target": [i % 2 for i in range(60)]}
    )
    folder = folder_of(tmp_path / "data", {"mood": frame})
    path = tmp_path / "rows.safetensors"
    make_probe_rows(model[1], model[0], HOOKS, SETTINGS, folder, path)
    assert read_facts(path)["datasets"] == ["mood"]
    data = read_rows(path, "mood", HOOKS[1])
    assert data.rows.shape == (60, 32)
    assert data.labels.sum() == 30
    with pytest.raises(StoreError, match=r"no rows of 'mood' at resid_post\.9"):
        read_rows(path, "mood", "resid_post.9")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match="run again"):
        read_facts(path)


def planted_data(seed: int = 0) -> tuple[LabelledRows, Sae]:
    """Rows whose label is one direction of 64, which is one of the SAE's latents."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(400) % 2
    W_dec = torch.linalg.qr(torch.randn(64, 64, generator=generator))[0]
    rows = torch.randn(400, 64, generator=generator) @ W_dec
    rows += (3 * labels - 2)[:, None] * W_dec[5]
    return LabelledRows(rows, labels), Sae("relu", W_dec.T.contiguous(), torch.zeros(64), W_dec, torch.zeros(64))


def random_saes(n: int) -> list[Sae]:
    result = []
    for seed in range(n):
        W_dec = torch.nn.functional.normalize(
            torch.randn(64, 64, generator=torch.Generator().manual_seed(50 + seed)), dim=1
        )
        result.append(Sae("relu", W_dec.T.contiguous(), torch.zeros(64), W_dec, torch.zeros(64)))
    return result


def test_planted_latent_beats_every_baseline():
    data, sae = planted_data()
    result = probe_dataset(data, sae, random_saes(3), SETTINGS)
    one = result["k"]["1"]
    assert one["sae"]["auc"] > 0.88
    for baseline in ("minus_random", "minus_raw"):
        assert one[baseline]["interval"][0] > 0
    assert result["dense"]["auc"] > 0.95
    assert result["fragmentation"]["sae"]["n_split"] == 1
    assert result["fragmentation"]["random"]["n_split"] is not None
    assert one["sae"]["interval"][0] < one["sae"]["auc"] < one["sae"]["interval"][1]
    assert one["sae"]["split_sd"] > 0


def test_shuffled_labels_are_at_chance():
    values = []
    for seed in range(8):
        data, sae = planted_data(seed)
        values.append(probe_dataset(data, sae, random_saes(3), SETTINGS)["k"]["3"]["shuffled"]["auc"])
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)


def test_label_that_is_not_there_has_no_number_of_latents():
    data, sae = planted_data()
    noise = LabelledRows(torch.randn(400, 64, generator=torch.Generator().manual_seed(3)), data.labels)
    result = probe_dataset(noise, sae, random_saes(3), SETTINGS)["fragmentation"]["sae"]
    assert result["n_split"] is result["n_to_dense"] is None
    assert "the dense probe has AUC" in result["reason"]


def test_rows_of_another_width_are_refused():
    with pytest.raises(EvaluationError, match="rows have width 8, the SAE reads 64"):
        encode_rows(planted_data()[1], torch.zeros(3, 8))


def test_table_has_a_row_per_data_set_and_k_and_the_means(tmp_path):
    data, sae = planted_data()
    datasets = {name: probe_dataset(data, sae, random_saes(3), SETTINGS) for name in "abcd"}
    write_json(tmp_path / "p.json", {"datasets": datasets, "(all)": over_datasets(datasets)})
    write_probing_table("s", {"tiny/resid_post.1/chat/topk/seed-3": tmp_path / "p.json"}, tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv")
    assert list(table.dataset) == [*"aabbccdd", "(all)", "(all)"]
    assert list(table.k) == [1, 3] * 5
    assert table.sae_auc.iloc[8] == pytest.approx(table.sae_auc.iloc[[0, 2, 4, 6]].mean())
    for name in ("sae_interval_low", "minus_random_value", "minus_raw_interval_high", "dense_auc", "shuffled_auc"):
        assert table[name].notna().all()
