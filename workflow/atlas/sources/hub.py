"""Hub repositories: a branch is resolved to a commit once, written down, and used from then on."""

import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import yaml

from atlas.config.sources import HubSource
from atlas.errors import SourceError
from atlas.files import atomic_path, write_text
from atlas.locks import NoLocksError, wait_for_lock
from atlas.yaml_files import read_yaml

log = logging.getLogger(__name__)

RepoType = Literal["model", "dataset"]
LOCK_FILE = Path("config/revisions.lock.yaml")
_PAUSE_SECONDS = 0.1

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HEADER = (
    "# Commits of the hub repositories in use, written when each was first resolved. Keep under version control.\n"
)
# Weights as safetensors only: pickled formats can run code when they are read.
_MODEL_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
# Folders hold other formats of the same weights; 'consolidated' files hold them a second time.
_NOT_NEEDED = ["*/*", "consolidated*"]


def resolve_revision(source: HubSource, lock: Path, repo_type: RepoType) -> str:
    """The commit that `source` stands for: 40 hexadecimal digits.

    A commit is returned as it is. A branch or tag is looked up in the YAML file `lock` (``models/<id>@<revision>`` or
    ``datasets/<id>@<revision>`` → commit); only when it is not there the hub is asked, and its answer added to the
    file. Safe with other processes that use the same file. Raises SourceError when the hub cannot be asked or does
    not have the repository, when the lock is malformed, or the token's environment variable is not set.
    """
    if _COMMIT.fullmatch(source.revision):
        return source.revision
    lock = Path(lock)
    key = f"{repo_type}s/{source.id}@{source.revision}"
    with _exclusive(lock):
        locked = _read_lock(lock)
        if key not in locked:
            locked[key] = _ask_hub(source, repo_type)
            write_text(lock, _HEADER + yaml.safe_dump(locked, sort_keys=True))
            log.info("resolved %s to commit %s, written to %s", key, locked[key], lock)
    return locked[key]


def without_queries(text: str) -> str:
    """A text of another program, its addresses without queries, which can be signatures, and without passwords."""
    return re.sub(r"(\w+://)(?:[^\s/@]+@)?([^\s?#'\"]*)(?:[?#][^\s'\"]*)?", r"\1\2", text)


def download_model(source: HubSource, commit: str, folder: Path) -> None:
    """Download configuration, tokenizer and safetensors weights of a model at `commit` into `folder`.

    Nothing else of the repository is fetched, pickled weights in particular. Raises SourceError when the hub cannot
    be reached, or the commit has no safetensors.
    """
    from huggingface_hub import snapshot_download

    # Into a new folder: offline, the client returns whatever an existing folder holds as if it were the whole model.
    with atomic_path(folder) as temporary:
        with _hub_errors(source, f"cannot download commit {commit}"):
            snapshot_download(
                source.id,
                revision=commit,
                local_dir=temporary,
                allow_patterns=_MODEL_FILES,
                ignore_patterns=_NOT_NEEDED,
                token=read_token(source),
            )
        if not any(temporary.glob("*.safetensors")):
            raise SourceError(
                f"hub repository {source.id!r} at {commit} has no *.safetensors; pickled weights are refused: "
                "name a revision that has safetensors"
            )
        shutil.rmtree(temporary / ".cache", ignore_errors=True)  # the client's notes, no part of the model


def list_files(source: HubSource, commit: str) -> list[str]:
    """Names of all files of a model repository at `commit`; raises SourceError when the hub cannot be asked."""
    from huggingface_hub import HfApi

    with _hub_errors(source, f"cannot list the files of commit {commit}"):
        return HfApi(token=read_token(source)).list_repo_files(source.id, revision=commit, repo_type="model")


def download_files(source: HubSource, commit: str, names: Sequence[str], folder: Path) -> None:
    """Download these files of a model repository at `commit` into `folder`, and no others.

    Raises SourceError when the hub cannot be reached, or a file did not arrive.
    """
    from huggingface_hub import hf_hub_download

    with atomic_path(folder) as temporary:
        for name in names:
            with _hub_errors(source, f"cannot download {name} of commit {commit}"):
                hf_hub_download(source.id, name, revision=commit, local_dir=temporary, token=read_token(source))
            if not (temporary / name).is_file():
                raise SourceError(f"hub repository {source.id!r} at {commit}: {name} did not arrive; run again")
        shutil.rmtree(temporary / ".cache", ignore_errors=True)  # the client's notes, none of the files


def read_token(source: HubSource) -> str | None:
    """The access token of `source`; None leaves the choice to the hub client (a login on this machine, or none)."""
    if source.token_env is None:
        return None
    token = os.environ.get(source.token_env, "").strip()
    if not token:
        raise SourceError(
            f"hub repository {source.id!r}: environment variable {source.token_env!r}, named by token_env, is not "
            "set; export an access token under this name"
        )
    return token


@contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    """Hold `lock` against other processes. The lock is on a file beside it, because `lock` itself gets replaced.

    On a file system without locks it is not held, and the log says so: the file is replaced as a whole all the same.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    guard, descriptor = lock.with_name(f".{lock.name}.guard"), None
    try:
        descriptor = wait_for_lock(guard, _PAUSE_SECONDS)
    except NoLocksError as error:
        log.warning(
            "%s: the file system of %s has no file locks (%s): two jobs that resolve revisions at once could each "
            "lose the other's line; give 'revision' as a commit, or look at the file when all have ended",
            guard,
            lock.parent,
            error.strerror,
        )
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _read_lock(lock: Path) -> dict[str, str]:
    if not lock.exists():
        return {}
    locked = read_yaml(lock, SourceError, "restore the file from version control, or delete it") or {}
    if not isinstance(locked, dict):
        raise SourceError(f"{lock}: expected 'repository@revision: commit' lines, found {type(locked).__name__}")
    for key, commit in locked.items():
        if not _COMMIT.fullmatch(str(commit)):
            raise SourceError(
                f"{lock}: {key}: {commit!r} is no commit, expected 40 hexadecimal digits; "
                "restore the line from version control, or delete it to resolve the revision again"
            )
    return {str(key): str(commit) for key, commit in locked.items()}


def _ask_hub(source: HubSource, repo_type: RepoType) -> str:
    from huggingface_hub import HfApi

    api = HfApi(token=read_token(source))
    ask = api.model_info if repo_type == "model" else api.dataset_info
    with _hub_errors(source, f"cannot resolve {repo_type} revision {source.revision!r}"):
        commit = ask(source.id, revision=source.revision).sha
    if commit is None or not _COMMIT.fullmatch(commit):
        raise SourceError(f"hub repository {source.id!r}: answered {commit!r} for {source.revision!r}, not a commit")
    return commit


@contextmanager
def _hub_errors(source: HubSource, failure: str) -> Iterator[None]:
    """Turn the hub client's errors into messages with a remedy."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # The client's transport library goes by several names; its base error is the one the client's own derives from.
    transport_error: type[Exception] = HfHubHTTPError.__bases__[0]
    where = f"hub repository {source.id!r}: {failure}"
    try:
        yield
    except GatedRepoError as error:
        raise SourceError(
            f"{where}: it is gated; accept its terms on the hub and name the variable with your token in token_env"
        ) from error
    except RevisionNotFoundError as error:
        raise SourceError(f"{where}: there is no such revision; correct 'revision'") from error
    except RepositoryNotFoundError as error:
        raise SourceError(
            f"{where}: there is no such repository, or it is private; check 'id' and token_env"
        ) from error
    except HFValidationError as error:
        raise SourceError(f"{where}: 'id' must look like 'organisation/name'") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, transport_error, OSError) as error:
        # The type alone: the text can quote addresses with signatures.
        raise SourceError(
            f"{where} ({type(error).__name__}); check the network, HF_ENDPOINT and HF_HUB_OFFLINE, and run again"
        ) from error
