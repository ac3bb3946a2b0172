"""Figures of one test are not kept for the next: matplotlib counts those that are open."""

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")
