"""One-to-one partners between the rows of two dictionaries."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from jaxtyping import Integer as Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_CHUNK_ELEMENTS = 2**26

Method = Literal["exact", "greedy"]


@dataclass(frozen=True)
class Matching:
    """Partner of each row of the first dictionary in the second, −1 where the second has no row left for it.

    `cosine` is NaN where there is no partner. `method` says how partners were found.
    """

    partner: Int[np.ndarray, " first"]
    cosine: Float[np.ndarray, " first"]
    method: Method


def matching_method(n_first: int, n_second: int, exact_up_to: int) -> Method:
    """Exact while both dictionaries have at most `exact_up_to` rows: the time grows with the cube of their size."""
    return "exact" if max(n_first, n_second) <= exact_up_to else "greedy"


def match(first: Float[Tensor, "first width"], second: Float[Tensor, "second width"], method: Method) -> Matching:
    """Partners of unit rows: `exact` has the largest sum of cosines there is (the Hungarian assignment).

    `greedy` pairs the two closest rows, then the two closest of those that are left, and so on. It needs no matrix of
    all cosines; its sum is at most the exact one, and at least half of it where cosines are not negative.
    """
    partner, cosine = np.full(len(first), -1), np.full(len(first), np.nan)
    if len(first) and len(second):
        if method == "exact":
            rows, columns, values = _exact(first, second)
        else:
            rows, columns, values = _greedy(first, second)
        partner[rows], cosine[rows] = columns, values
    return Matching(partner, cosine, method)


def largest_cosines(
    first: Float[Tensor, "first width"], second: Float[Tensor, "second width"]
) -> tuple[Float[Tensor, " first"], Int[Tensor, " first"]]:
    """Largest cosine of each unit row of the first to a row of the second, and which row that is; ties: the lowest."""
    step = max(1, _CHUNK_ELEMENTS // max(1, len(second)))
    values, indices = first.new_empty(len(first)), torch.empty(len(first), dtype=torch.int64, device=first.device)
    for start in range(0, len(first), step):
        part = slice(start, start + step)
        values[part], indices[part] = (first[part] @ second.T).max(dim=1)
    return values, indices


def _exact(first: Tensor, second: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cosines = (first @ second.T).double().cpu().numpy()
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return rows, columns, cosines[rows, columns]


def _greedy(first: Tensor, second: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In rounds: rows that are each other's closest among the free ones are what sorting all pairs would pair too."""
    rows, columns = torch.arange(len(first), device=first.device), torch.arange(len(second), device=first.device)
    found = []
    while len(rows) and len(columns):
        value, to_second = largest_cosines(first[rows], second[columns])
        _, to_first = largest_cosines(second[columns], first[rows])
        mutual = to_first[to_second] == torch.arange(len(rows), device=rows.device)
        if not bool(mutual.any()):  # rounding broke a tie in two ways: the closest pair is right in either
            mutual[value.argmax()] = True
        found.append((rows[mutual], columns[to_second[mutual]], value[mutual]))
        free = torch.ones(len(columns), dtype=torch.bool, device=rows.device)
        free[to_second[mutual]] = False
        rows, columns = rows[~mutual], columns[free]
    row, column, value = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    return row, column, value.astype(np.float64)
