"""The rules of plain English find what is planted, and nothing in plain sentences."""

import pytest

from atlas.docs.prose import LONGEST_LINE, of_code, of_page

LONG = "word " * (LONGEST_LINE // 5 + 1)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f"A short line.\n{LONG}\n", [2]),
        (f"| {LONG} |\n```\n{LONG}\n```\n![picture]({LONG})\n", []),
        ("The mean of A is\nthat of B, and those of C follow.\n", [1]),
        ("It is that of B. It is those of C.\n", []),
    ],
)
def test_pages(text, lines):
    assert [finding.line for finding in of_page(text, "page.md")] == lines


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        ('def f():\n    """Whether it holds."""\n', 1),
        ('def f():\n    """Return whether it holds."""\n', 0),
        ('class A:\n    """What a rule says."""\n', 1),
        ('class A:\n    """Text of a rule."""\n', 0),
        ('def f():\n    """Return that of A and those of B."""\n', 1),
        ('def f(x):\n    raise ValueError(f"{x}: that of A is not those of B")\n', 1),
        ('def f(x):\n    raise ValueError(f"{x}: expected a number above 0")\n', 0),
    ],
)
def test_code(source, rules):
    assert len(list(of_code(source, "module.py"))) == rules
