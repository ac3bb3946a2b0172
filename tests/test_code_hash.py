"""Find the code that a job can run, and hash it without comments."""

from pathlib import Path

import pytest

from atlas.code_hash import Code, CodeError

FILES = {
    "scripts/run.py": "from atlas.job import job\n\nwith job():\n    from atlas.stage.work import work\n\n    work()\n",
    "scripts/other.py": "import atlas.leaf\n",
    "scripts/page.py": "from atlas.stage.pages import write\n",
    "scripts/peer.py": "from atlas.stage.launch import start\n",
    "atlas/__init__.py": '"""The library."""\n',
    "atlas/job.py": "import contextlib\n\njob = contextlib.nullcontext\n",
    "atlas/leaf.py": "FACTOR = 10\n",
    "atlas/unused.py": "X = 1\n",
    "atlas/typed.py": "class Shape: ...\n",
    "atlas/stage/__init__.py": "ANY = True\n",
    "atlas/stage/work.py": (
        '"""Works."""\n\nfrom typing import TYPE_CHECKING\n\nfrom . import deep\n\nif TYPE_CHECKING:\n'
        "    from atlas.typed import Shape\n\n\ndef work():\n    from ..leaf import FACTOR\n\n    return FACTOR, deep\n"
    ),
    "atlas/stage/deep.py": "import numpy\nfrom atlas.registry import ENTRIES\n",
    "atlas/registry/__init__.py": "from atlas.registry.one import ONE\n\nENTRIES = (ONE,)\n",
    "atlas/registry/one.py": "ONE = 1\n",
    "atlas/stage/pages.py": 'TEMPLATES = "templates"\nTABLE = "published.csv"\n\n\ndef write(): ...\n',
    "atlas/stage/templates/page.html": "<p>\n",
    "atlas/stage/templates/parts/row.html": "<tr>\n",
    "atlas/stage/assets/look.css": "p {}\n",
    "atlas/stage/published.csv": "a\n",
    "atlas/stage/launch.py": 'RUNNER = "run_peer.py"\n\n\ndef start(): ...\n',
    "peers/run_peer.py": "import shared\n",
    "peers/shared.py": "Y = 1\n",
}
BY_RUN = [
    "atlas/__init__.py",
    "atlas/job.py",
    "atlas/leaf.py",
    "atlas/registry/__init__.py",
    "atlas/registry/one.py",
    "atlas/stage/__init__.py",
    "atlas/stage/deep.py",
    "atlas/stage/work.py",
    "scripts/run.py",
]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def hash_of(folder: Path, *entries: str) -> str:
    return Code(folder).hash_of(*entries)


def edited(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


def test_imports_are_followed_into_functions_packages_and_relative_names(folder):
    assert Code(folder).reached("scripts/run.py") == BY_RUN


def test_files_that_a_module_names_and_scripts_that_it_starts_are_reached(folder):
    page = set(Code(folder).reached("scripts/page.py"))
    assert {name for name in page if not name.endswith(".py")} == {
        "atlas/stage/published.csv",
        "atlas/stage/templates/page.html",
        "atlas/stage/templates/parts/row.html",
    }
    assert {"peers/run_peer.py", "peers/shared.py"} <= set(Code(folder).reached("scripts/peer.py"))
    assert "peers/shared.py" in Code(folder).reached("scripts/run.py", "peers/run_peer.py")


@pytest.mark.parametrize("name", BY_RUN)
def test_an_edit_of_any_reached_file_changes_the_hash(folder, name):
    before, other = hash_of(folder, "scripts/run.py"), hash_of(folder, "scripts/other.py")
    with (folder / name).open("a") as stream:
        stream.write("EDITED = 1\n")
    assert hash_of(folder, "scripts/run.py") != before
    assert (hash_of(folder, "scripts/other.py") != other) == (name in ("atlas/__init__.py", "atlas/leaf.py"))


@pytest.mark.parametrize("name", sorted(set(FILES) - set(BY_RUN)))
def test_an_edit_of_any_other_file_does_not(folder, name):
    before = hash_of(folder, "scripts/run.py")
    with (folder / name).open("a") as stream:
        stream.write("EDITED = 1\n")
    assert hash_of(folder, "scripts/run.py") == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Works."""', '"""Works well.\n\nAnd explains it.\n"""'),
        ('"""Works."""\n', ""),
        ("    return FACTOR, deep\n", "    # Why.\n    return (\n        FACTOR,\n        deep,\n    )  # both\n"),
        ("def work():\n", 'def work():\n    """Do it."""\n'),
        ("from atlas.typed import Shape", "from atlas.unused import X"),
    ],
)
def test_comments_docstrings_layout_and_types_do_not(folder, old, new):
    before = hash_of(folder, "scripts/run.py")
    edited(folder, "atlas/stage/work.py", old, new)
    assert hash_of(folder, "scripts/run.py") == before


def test_the_description_of_a_key_is_documentation_and_its_default_is_not(folder):
    name = "atlas/leaf.py"
    (folder / name).write_text('class Section:\n    k: int = Field(default=3, description="How many.")\n')
    before = hash_of(folder, "scripts/run.py")
    edited(folder, name, "How many.", "How many latents.")
    assert hash_of(folder, "scripts/run.py") == before
    edited(folder, name, "default=3", "default=4")
    assert hash_of(folder, "scripts/run.py") != before


def test_code_that_moves_to_another_module_changes_the_hash(folder):
    before = hash_of(folder, "scripts/other.py")
    (folder / "atlas/leaf.py").rename(folder / "atlas/leaves.py")
    edited(folder, "scripts/other.py", "atlas.leaf", "atlas.leaves")
    assert hash_of(folder, "scripts/other.py") != before


def test_what_is_not_there_and_what_is_no_python_are_errors(folder):
    with pytest.raises(CodeError, match=r"scripts/none\.py: no such file"):
        hash_of(folder, "scripts/none.py")
    edited(folder, "scripts/other.py", "atlas.leaf", "atlas.lost")
    with pytest.raises(CodeError, match=r"scripts/other\.py: imports atlas\.lost, which does not exist"):
        hash_of(folder, "scripts/other.py")
    (folder / "scripts/other.py").write_text("def (:\n")
    with pytest.raises(CodeError, match=r"scripts/other\.py: not Python"):
        hash_of(folder, "scripts/other.py")


def test_a_module_has_the_files_of_the_packages_around_it(folder):
    code = Code(folder)
    assert code.files_of("atlas.stage.work") == ("atlas/__init__.py", "atlas/stage/__init__.py", "atlas/stage/work.py")
    with pytest.raises(CodeError, match=r"has no module atlas\.stage\.lost"):
        code.files_of("atlas.stage.lost")
