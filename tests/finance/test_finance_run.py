"""Files that do not belong together are refused, never measured."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from shards import make_shard

from atlas.config.finance import Finance
from atlas.config.study import Evaluation
from atlas.errors import EvaluationError, StoreError
from atlas.files import read_json
from atlas.finance.run import FinanceInputs, FinanceSettings, run_finance
from atlas.models.prepare import prepare_model
from atlas.training.sae import WEIGHTS_FILE, Sae, save_sae
from tiny import describe_model, tiny_llama

SECTION = Finance(corpus="money", generic="chat", rewritten="money-dialogue", moved="money-moved")
METADATA = {"model_name": "tiny", "hook_name": "resid_post.0"}
SETTINGS = FinanceSettings(SECTION, Evaluation(bootstrap_samples=100), 100, 8)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    prepare_model("tiny", describe_model(tiny_llama(folder / "llama"), 4), None, folder / "model", folder / "lock")
    return folder / "model"


def inputs(folder: Path, model: Path, width: int = 16, **fingerprints: str) -> FinanceInputs:
    """Shards of 256 rows with a token each; codes and references are missing, for no test here gets as far."""
    identity = read_json(model / "identity.json")
    known = {key: identity[key] for key in ("weights_sha256", "tokenizer_sha256")}
    shards = {}
    for corpus in ("chat", "money", "money-dialogue", "money-moved"):
        (folder / corpus).mkdir()
        split = "train" if corpus == "chat" else "eval"
        shards[corpus] = folder / corpus / f"{split}-000.h5"
        own = {"corpus": corpus, "split": split, "corpus_fingerprint": fingerprints.get(corpus, corpus)}
        make_shard(shards[corpus], 8, **known, **own)
    W_dec = torch.nn.functional.normalize(torch.randn(24, width, generator=torch.Generator().manual_seed(0)), dim=1)
    sae = folder / "saes/tiny/resid_post.0/chat/topk/seed-0"
    save_sae(Sae("topk", W_dec.T.contiguous(), torch.zeros(24), W_dec, torch.zeros(width), k=4), sae, METADATA)
    text = {"plain": [shards["money"]], "rewritten": [shards["money-dialogue"]], "moved": [shards["money-moved"]]}
    missing = folder / "missing.h5"
    return FinanceInputs(model, sae, [shards["chat"]], text, missing, missing, missing, missing)


def run(files: FinanceInputs, folder: Path, hook: str = "resid_post.0") -> None:
    run_finance(
        files,
        hook=hook,
        seed=0,
        settings=SETTINGS,
        device=torch.device("cpu"),
        target=folder / "finance.json",
        draws=folder / "draws.parquet",
    )


def test_an_sae_of_another_width_is_refused(tmp_path, model):
    with pytest.raises(EvaluationError, match=r"seed-0: d_model is 20, but rows of resid_post\.0 have width 16"):
        run(inputs(tmp_path, model, width=20), tmp_path)


def test_an_sae_of_another_hook_is_refused(tmp_path, model):
    with pytest.raises(EvaluationError, match=r"hook_name is 'resid_post\.0', expected 'resid_post\.1'"):
        run(inputs(tmp_path, model), tmp_path, hook="resid_post.1")


def test_weights_that_are_not_finite_are_refused(tmp_path, model):
    files = inputs(tmp_path, model)
    path = files.sae / WEIGHTS_FILE
    tensors = load_file(path)
    tensors["W_enc"][0, 0] = torch.nan
    save_file(tensors, path)
    with pytest.raises(EvaluationError, match=r"W_enc.*finite"):
        run(files, tmp_path)


@pytest.mark.parametrize(
    ("same", "message"),
    [
        ({"money-moved": "money"}, "corpora 'money' and 'money-moved' are the same text"),
        ({"money": "chat"}, r"corpora 'money' and 'chat \(trained on\)' are the same text"),
    ],
)
def test_texts_that_must_differ_and_do_not_are_refused(tmp_path, model, same, message):
    with pytest.raises(EvaluationError, match=message):
        run(inputs(tmp_path, model, **same), tmp_path)


def test_rows_of_another_model_or_split_are_refused(tmp_path, model):
    files = inputs(tmp_path, model)
    make_shard(files.shards["moved"][0], 8, corpus="money-moved", split="eval")
    with pytest.raises(StoreError, match=r"money-moved/eval-000\.h5: weights_sha256 is 'w', expected"):
        run(files, tmp_path)
    files.shards["moved"][0] = files.train_shards[0]
    with pytest.raises(StoreError, match="split is 'train', expected 'eval'"):
        run(files, tmp_path)
    assert not (tmp_path / "finance.json").exists()
