"""Tiny models, prepared from a local folder as the workflow does it."""

import pytest
import torch

from atlas.models.load import LoadedModel
from tiny import prepare_and_load, tiny_bert, tiny_llama, tiny_nemotron_h


@pytest.fixture
def llama(tmp_path) -> LoadedModel:
    return prepare_and_load(tiny_llama(tmp_path / "llama"), tmp_path / "prepared", 4)


@pytest.fixture
def bert(tmp_path) -> LoadedModel:
    return prepare_and_load(tiny_bert(tmp_path / "bert"), tmp_path / "prepared", 3, objective="embedding")


@pytest.fixture
def nemotron_h(tmp_path) -> LoadedModel:
    return prepare_and_load(tiny_nemotron_h(tmp_path / "nemotron"), tmp_path / "prepared", 4)


@pytest.fixture
def contexts() -> torch.Tensor:
    """Three contexts of 24 small letters."""
    return torch.randint(70, 96, (3, 24), generator=torch.Generator().manual_seed(1))
