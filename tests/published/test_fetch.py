"""Fetching a published SAE: the files that its format needs and no others, checked before any model is run."""

import json
from typing import get_args

import pytest
import torch
from safetensors.torch import save_file
from test_hub import COMMIT, LATER, hub  # noqa: F401

import atlas
from atlas.config.saes import PublishedFormat, PublishedSae
from atlas.errors import ReadingError, SourceError
from atlas.files import read_json
from atlas.published import FORMATS
from atlas.published.fetch import fetch_published, read_fetched, wanted_files

WIDTH, LATENTS = 8, 16


def test_the_configuration_knows_every_format_that_is_read():
    assert get_args(PublishedFormat) == tuple(FORMATS)


@pytest.fixture
def release(tmp_path):
    """A repository with the SAE of SAELens' format in a folder, and what nobody asked for beside it."""
    folder = tmp_path / "release/layer_1/small"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    shapes = {"W_enc": (WIDTH, LATENTS), "W_dec": (LATENTS, WIDTH), "b_enc": (LATENTS,), "b_dec": (WIDTH,)}
    save_file({name: torch.randn(shape) for name, shape in shapes.items()}, folder / "sae_weights.safetensors")
    config = {"architecture": "standard", "d_in": WIDTH, "d_sae": LATENTS, "dtype": "float32"}
    config |= {"apply_b_dec_to_input": True, "metadata": {"sae_lens_version": "6.0.0"}}
    (folder / "cfg.json").write_text(json.dumps(config))
    (folder / "optimizer.pt").write_bytes(b"pickle")
    (tmp_path / "release/README.md").write_text("a release")
    return tmp_path / "release"


def spec(source, **changes) -> PublishedSae:
    values = {"source": source, "folder": "layer_1/small", "format": "saelens", "model": "tiny", "hook": "resid_post.1"}
    return PublishedSae(**values | {"n_latents": LATENTS} | changes)


def fetch(entry, tmp_path, d_model=WIDTH):
    fetch_published("theirs", entry, d_model, [], tmp_path / "fetched", tmp_path / "lock.yaml")
    return tmp_path / "fetched"


def local(release, **changes):
    return spec({"kind": "path", "path": str(release)}, **changes)


def test_a_folder_is_copied_with_hashes_and_read_again(release, tmp_path):
    entry = local(release)
    published, record = read_fetched("theirs", entry, fetch(entry, tmp_path))
    assert published.sae.n_latents == LATENTS and published.hook == "resid_post.1"
    assert sorted(record["files_sha256"]) == [
        f"release/layer_1/small/{name}" for name in ("cfg.json", "sae_weights.safetensors")
    ]


def test_a_hub_gives_the_files_of_the_format_alone(hub, release, tmp_path):  # noqa: F811
    hub.files = {
        path.relative_to(release).as_posix(): path.read_bytes() for path in release.rglob("*.*") if path.is_file()
    }
    entry = spec({"kind": "hub", "id": "org/name", "licence": "MIT"})
    published, record = read_fetched("theirs", entry, fetch(entry, tmp_path))
    assert record["revision"] == COMMIT and published.sae.d_model == WIDTH
    got = {path.split("/", 4)[-1].split("?")[0] for path, _ in hub.seen if "/resolve/" in path}
    assert {name.rpartition("/")[2] for name in got} == {"cfg.json", "sae_weights.safetensors"}
    assert COMMIT in (tmp_path / "lock.yaml").read_text()


def on_hub(hub, release):  # noqa: F811
    hub.files = {
        path.relative_to(release).as_posix(): path.read_bytes() for path in release.rglob("*.*") if path.is_file()
    }
    return {"format": "saelens", "folder": "layer_1/small", "hook": "resid_post.1"}


def test_python_opens_an_sae_of_the_hub_and_keeps_its_files_and_commit(hub, release, tmp_path):  # noqa: F811
    keys = on_hub(hub, release) | {"results": tmp_path / "project/results"}
    first = atlas.open_sae("org/name", **keys)
    assert first.facts["source"] == {"hub": "org/name", "folder": "layer_1/small", "revision": COMMIT}
    assert f"models/org/name@main: {COMMIT}" in (tmp_path / "project/config/revisions.lock.yaml").read_text()
    local = atlas.open_sae(release, format="saelens", folder="layer_1/small", hook="resid_post.1")
    rows = torch.randn(5, WIDTH)
    assert torch.equal(first.encode(rows), local.encode(rows)) and first.hook == "resid_post.1"
    asked, hub.commit = len(hub.seen), LATER
    again = atlas.open_sae("org/name", **keys)
    assert len(hub.seen) == asked and again.facts["source"]["revision"] == COMMIT
    (path,) = (tmp_path / "project/results/downloads/hub").rglob("cfg.json")
    path.write_text(path.read_text().replace("true", "false"))
    with pytest.raises(ReadingError, match="altered since it was fetched"):
        atlas.open_sae("org/name", **keys)


def test_python_names_what_the_hub_lacks(hub, release, tmp_path):  # noqa: F811
    keys = on_hub(hub, release) | {"results": tmp_path / "project/results"}
    with pytest.raises(SourceError, match=r"org/name: format saelens needs .* in folder 'layer_2'"):
        atlas.open_sae("org/name", **keys | {"folder": "layer_2"})
    with pytest.raises(SourceError, match="no such repository, or it is private"):
        atlas.open_sae("org/other", **keys)
    with pytest.raises(SourceError, match="no such revision; correct 'revision'"):
        atlas.open_sae("org/name", **keys, revision="nosuch")
    with pytest.raises(ReadingError, match="neither a folder or file here nor the name of a hub repository"):
        atlas.open_sae("a/b/c", **keys)
    with pytest.raises(ReadingError, match=r"revision is 'main', but .* is a folder or file here"):
        atlas.open_sae(release, **keys, revision="main")
    with pytest.raises(ReadingError, match="folder, revision given without format"):
        atlas.open_sae("org/name", folder="layer_1", revision="main")
    with pytest.raises(ReadingError, match="one of the hub needs its format"):
        atlas.open_sae("org/name", results=tmp_path)
    assert not [path for path in tmp_path.rglob("downloads/**/*") if path.is_file()]


def test_python_says_that_there_is_no_network(release, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        SourceError, match=r"no folder or file here, .*'org/name': cannot resolve model revision 'main'"
    ):
        atlas.open_sae("org/name", format="saelens", results=tmp_path / "results")


def test_an_altered_file_is_refused_when_it_is_read_again(release, tmp_path):
    entry = local(release)
    folder = fetch(entry, tmp_path)
    path = folder / "files" / read_json(folder / "published.json")["place"] / "cfg.json"
    path.write_text(path.read_text().replace("true", "false"))
    with pytest.raises(ReadingError, match="altered since it was fetched"):
        read_fetched("theirs", entry, folder)


@pytest.mark.parametrize(
    ("changes", "d_model", "said"),
    [
        ({"n_latents": 32}, WIDTH, "saes.theirs.n_latents is 32, but the files have 16; correct it"),
        ({}, 12, "d_model of the files is 8, but rows of resid_post.1 of model 'tiny' have width 12"),
        ({"target_hook": "resid_post.2"}, WIDTH, "saes.theirs"),
        ({"states": {"apply_b_dec_to_input": False}}, WIDTH, "apply_b_dec_to_input is True, but the configuration"),
        ({"states": {"kk": 3}}, WIDTH, "stated key 'kk' (3) means nothing to this SAE"),
    ],
)
def test_what_does_not_fit_is_named(release, tmp_path, changes, d_model, said):
    with pytest.raises(ReadingError) as error:
        fetch(local(release, **changes), tmp_path, d_model)
    assert said in str(error.value)
    assert not (tmp_path / "fetched").exists()


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("layer_2", "format saelens needs cfg.json, sae_weights.safetensors in folder 'layer_2'"),
        ("layer_1", "of its 4 files some are layer_1/small/cfg.json"),
    ],
)
def test_a_folder_without_the_files_names_some_that_there_are(release, tmp_path, folder, said):
    with pytest.raises(SourceError) as error:
        fetch(local(release, folder=folder), tmp_path)
    assert said in str(error.value)


def test_files_are_wanted_at_their_place_alone():
    names = ["a/cfg.json", "a/b/cfg.json", "cfg.json", "a/checkpoints/final.safetensors", "a/params.npz"]
    assert wanted_files(names, "a", ["cfg.json"]) == ["a/cfg.json"]
    assert wanted_files(names, "", ["cfg.json"]) == ["cfg.json"]
    assert wanted_files(names, "a", ["checkpoints/*.safetensors"]) == ["a/checkpoints/final.safetensors"]
    assert wanted_files(names, "a/params.npz", ["cfg.json"]) == ["a/params.npz"]
    assert wanted_files(names, "ab", ["*"]) == []
