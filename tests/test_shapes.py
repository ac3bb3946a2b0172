"""Shapes in annotations are executed while the tests run."""

import os

import pytest
from jaxtyping import TypeCheckError
from shapes import with_checks

SOURCE = '''
"""A module."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Rows = Float[np.ndarray, "rows width"]


def norms(rows: Float[np.ndarray, "rows width"]) -> Float[np.ndarray, " rows"]:
    return (rows**2).sum(axis=1) ** 0.5


def falsely(rows: Float[np.ndarray, "rows width"]) -> Float[np.ndarray, " rows"]:
    return (rows**2).sum(axis=0) ** 0.5


def product(rows: Rows, other: dict[str, Rows], note: int = 0) -> None:
    pass


def plain(rows: np.ndarray) -> int:
    return rows


@dataclass(frozen=True)
class Pair:
    left: Float[np.ndarray, "rows width"]
    right: Float[np.ndarray, "rows width"]

    @property
    def first(self) -> Float[np.ndarray, "rows width"]:
        return self.left[0]
'''


@pytest.fixture
def module():
    np = pytest.importorskip("numpy")
    names = {"__name__": "planted"}
    exec(compile(with_checks(SOURCE), "planted.py", "exec"), names)
    return names, np.zeros((2, 3)), np.zeros((4, 3))


def test_true_shapes_pass(module):
    names, rows, other = module
    assert names["norms"](rows).shape == (2,)
    assert names["Pair"](rows, rows).left is rows
    names["product"](rows, {"other": rows}, note="of another type, which is the type checker's to find")
    assert names["plain"](other) is other and not hasattr(names["plain"], "__wrapped__")


def test_a_planted_false_shape_is_caught(module):
    names, rows, other = module
    for call in (
        lambda: names["falsely"](rows),  # returns one number per column
        lambda: names["norms"](rows[0]),
        lambda: names["product"](rows, {"other": other}),  # as many rows under one name
        lambda: names["Pair"](rows, other),
        lambda: names["Pair"](rows, rows).first,
    ):
        with pytest.raises(TypeCheckError):
            call()


def test_jobs_still_see_all_annotations(module):
    names, _, _ = module
    assert names["product"].__annotations__["note"] is int


def test_the_library_is_checked():
    if os.environ.get("ATLAS_TEST_WITHOUT_SHAPES"):
        assert "CI" not in os.environ, "CI must check shapes"
        pytest.skip("the run was asked for without")
    import torch

    from atlas.training.auxk import auxiliary_loss

    with pytest.raises(TypeCheckError):
        auxiliary_loss(*[torch.zeros(3)] * 8)
