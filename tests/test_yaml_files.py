"""What YAML 1.1 reads as something else in silence is an error with its line; everything else is what PyYAML reads."""

import pytest
import yaml

from atlas.config.reference import FOLDER
from atlas.errors import ConfigError, DamagedFileError, SourceError
from atlas.runcard import read_run_card
from atlas.sources.hub import _read_lock
from atlas.yaml_files import read_yaml

REPOSITORY = FOLDER.parent
FILES = sorted([*FOLDER.rglob("*.yaml"), *(REPOSITORY / "profiles").rglob("*.yaml"), *REPOSITORY.glob("envs/*.yaml")])


def read(tmp_path, text, name="c.yaml"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_yaml(tmp_path / name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_our_own_files_are_read_as_pyyaml_reads_them(path):
    assert read_yaml(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: 1\nb: 2\na: 3\n",
            r"c\.yaml:3: key 'a' occurs twice at the top level, first in line 1; rename one of them",
        ),
        (
            "recipes:\n  topk: {k: 1}\n  wide: {k: 2}\n  topk: {k: 3}\n",
            r"c\.yaml:4: key 'topk' occurs twice in 'recipes', first in line 2",
        ),
        ("a: [{b: 1, b: 1}]", r"c\.yaml:1: key 'b' occurs twice in 'a\[0\]', first in line 1"),
        ("x: &x {k: 1}\nb:\n  <<: *x\n  <<: *x\n", r"c\.yaml:4: key '<<' occurs twice in 'b'.*write '<<: \[\*one"),
        ("max_runtime: 24:00:00\n", r"c\.yaml:1: max_runtime is 24:00:00, which YAML reads as 86400 \(a .* base 60\)"),
        ("a: {steps: 1:30}\n", r"a\.steps is 1:30, which YAML reads as 90"),
        (
            "seeds: [1, 010]\n",
            r"seeds\[1\] is 010, which YAML reads as 8 \(a number to base 8\); write \"010\" for text",
        ),
        (
            "corpora:\n  no: 1\n",
            r"c\.yaml:2: key no in 'corpora' is read as true or false, not as a name; write \"no\"",
        ),
        ("a:\n\t- 1\n", r"c\.yaml:2: not YAML at column 1: .*the line has a tab, and YAML is indented by spaces"),
        (
            "a:\n  b: 1\n c: 2\n",
            r"c\.yaml:3: not YAML at column 2: .*begins in line 1\); indent the keys of one mapping",
        ),
        ("a: b: c\n", r"c\.yaml:1: not YAML at column 5: .* quote a text that has ': '"),
        ("a: 1\n---\nb: 1\n", r"c\.yaml:2: .*a file is one document"),
        ("a: *b\n", r"c\.yaml:1: .*undefined alias 'b'"),
        ("a: !!python/name:os.system\n", r"c\.yaml:1: .*remove the tag"),
        ("a: 1\nb: \x01\n", r"c\.yaml:2: not YAML: it has the character 0x0001"),
    ],
)
def test_faults_name_file_and_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_all_faults_come_at_once_in_the_order_of_lines(tmp_path):
    with pytest.raises(ConfigError) as error:
        read(tmp_path, "b: {x: 010, x: 1}\na: 1:30\na: 2\n")
    assert [line.split("c.yaml:")[1].split(":")[0] for line in str(error.value).splitlines()] == ["1", "1", "2", "3"]


def test_json_is_read_and_its_equal_keys_are_found(tmp_path):
    assert read(tmp_path, '{\n\t"a": [1, "x\\ty"]\n}', "c.json") == {"a": [1, "x\ty"]}
    with pytest.raises(ConfigError, match=r"c\.json:3: key 'a' occurs twice"):
        read(tmp_path, '{\n\t"a": 1,\n\t"a": 2\n}', "c.json")


def test_quoted_and_merged_values_are_what_they_say(tmp_path):
    text = "base: &base {k: 1, lr: 2}\nown: {<<: *base, k: 3}\ntime: '24:00:00'\n'no': 0\nzero: 0\nhalf: 0.5\n"
    read_as = {"base": {"k": 1, "lr": 2}, "own": {"k": 3, "lr": 2}, "time": "24:00:00", "no": 0, "zero": 0, "half": 0.5}
    assert read(tmp_path, text) == read_as


def test_not_utf8_and_not_there(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: not UTF-8 \(byte 3\)"):
        read_yaml(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match=r"d\.yaml: there is no such file"):
        read_yaml(tmp_path / "d.yaml")


def test_lock_of_revisions_and_run_cards_are_read_strictly(tmp_path):
    commit = "0" * 39 + "a"
    (tmp_path / "lock.yaml").write_text(f"models/a/b@main: {commit}\nmodels/a/b@main: {commit}\n")
    with pytest.raises(SourceError, match=r"lock\.yaml:2: key 'models/a/b@main' occurs twice .*restore the file"):
        _read_lock(tmp_path / "lock.yaml")
    (tmp_path / "card.yaml").write_text("seed: 1\nseed: 2\n")
    with pytest.raises(DamagedFileError, match=r"card\.yaml:2: key 'seed' occurs twice .*train the SAE again"):
        read_run_card(tmp_path / "card.yaml")
