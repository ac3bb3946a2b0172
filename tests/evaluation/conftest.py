"""Eval shards in memory, with the interface of the store, and a tiny model."""

import copy
import hashlib
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from atlas.models.forward import capture, final_hidden, logits
from atlas.training.sae import Sae
from tiny import prepare_and_load, tiny_bert, tiny_llama

HOOK = "resid_post.1"


@dataclass
class FakeShard:
    """What evaluation reads of `atlas.activations.store.Shard`, for one hook."""

    rows: torch.Tensor
    tokens: np.ndarray
    document: np.ndarray
    counted: np.ndarray
    context_length: int
    identity: dict = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        return len(self.rows)

    @property
    def position(self) -> np.ndarray:
        return np.arange(self.n_rows) % self.context_length

    def read_rows(self, hook: str, start: int, stop: int) -> torch.Tensor:
        assert hook == HOOK
        return self.rows[start:stop].clone()

    def norms(self, hook: str) -> np.ndarray:
        return self.rows.float().norm(dim=1).numpy()

    def statistics(self, hook: str) -> dict:
        counted = self.rows[torch.from_numpy(self.counted)].double()
        norms = counted.norm(dim=1)
        regular = counted[norms <= 10 * norms.median()]
        return {
            "count": len(counted),
            "mean": counted.mean(0).numpy(),
            "count_regular": len(regular),
            "mean_regular": regular.mean(0).numpy(),
        }


def build_shards(loaded, corpus: str, seed: int, n_contexts: int = 12, length: int = 16, split: str = "eval") -> list:
    """Two shards of a corpus: six documents, first positions special."""
    generator = torch.Generator().manual_seed(seed)
    ids = write_text(loaded, n_contexts, length, generator)
    rows = capture(loaded, ids, [HOOK])[HOOK].flatten(0, 1).clone()
    counted, document = (ids != 1).flatten().numpy(), np.repeat(np.arange(n_contexts) // 2, length).astype(np.int32)
    document[~counted] = -1
    tokens = ids.flatten().numpy().astype(np.uint32)
    fingerprint = hashlib.sha256(tokens.tobytes()).hexdigest()
    half = n_contexts // 2 * length
    return [
        FakeShard(
            rows[part],
            tokens[part],
            document[part],
            counted[part],
            length,
            {
                "model": "tiny",
                "weights_sha256": loaded.identity["weights_sha256"],
                "tokenizer_sha256": loaded.identity["tokenizer_sha256"],
                "corpus": corpus,
                "corpus_fingerprint": fingerprint,
                "split": split,
                "shard": number,
                "context_length": length,
                "storage_dtype": "float32",
            },
        )
        for number, part in enumerate((slice(0, half), slice(half, None)))
    ]


def write_text(loaded, n_contexts: int, length: int, generator) -> torch.Tensor:
    """Text that a causal model itself wrote, so that it predicts it better than an ablated one; else random."""
    ids = torch.randint(6, 262, (n_contexts, length), generator=generator)
    ids[:, 0] = 1
    if loaded.objective == "causal_lm":
        for position in range(2, length):
            hidden = final_hidden(loaded, ids[:, :position])[:, -1]
            chances = logits(loaded, hidden).float().softmax(-1)
            chances[:, :6] = 0
            ids[:, position] = torch.multinomial(chances, 1, generator=generator)[:, 0]
    return ids


@pytest.fixture(scope="session")
def shards_of():
    """`build_shards`, remembered; every call gives copies that may be altered."""
    known = {}

    def build(loaded, corpus: str, seed: int, split: str = "eval") -> list:
        key = (loaded.identity["weights_sha256"], corpus, seed, split)
        if key not in known:
            known[key] = build_shards(loaded, corpus, seed, split=split)
        return copy.deepcopy(known[key])

    return build


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tensors here are tiny: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return prepare_and_load(tiny_llama(folder / "llama"), folder / "prepared", 4)


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    return prepare_and_load(tiny_bert(folder / "bert"), folder / "prepared", 3, objective="embedding")


@pytest.fixture
def identity_sae() -> Sae:
    """Reconstructs every row exactly: one latent for each direction and its opposite, d_model 32."""
    eye = torch.eye(32)
    both = torch.cat([eye, -eye])
    return Sae("relu", both.T.contiguous(), torch.zeros(64), both, torch.zeros(32))


@pytest.fixture
def topk_sae() -> Sae:
    """Random TopK SAE of 64 latents, k 4, d_model 32, with biases that matter."""
    generator = torch.Generator().manual_seed(5)
    W_dec = torch.nn.functional.normalize(torch.randn(64, 32, generator=generator), dim=1)
    W_dec[1] = torch.nn.functional.normalize(W_dec[0] + 0.7 * W_dec[1], dim=0)  # a pair above cosine 0.5
    return Sae("topk", W_dec.T.contiguous(), torch.zeros(64), W_dec, torch.full((32,), 0.1), k=4)
