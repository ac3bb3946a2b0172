"""Interface of a format, and the result of reading an SAE."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from atlas.training.sae import Sae


@dataclass(frozen=True)
class Published:
    """An SAE of others.

    `facts` are for the run card: format, the keys that were read, SHA-256 of the files, and hook, model and context as
    the files state them. `assumed` are the defaults that were taken where a key is missing, a sentence each. `ignored`
    are keys of the files that change nothing here. `hook` and `target_hook` are hook points of ours, None where
    neither the files nor the user state one that we have. `l0` is the number of latents a row that the files state,
    None where they do not. `alternatives` are other readings that the files allow, each under the words that say how
    it differs: the audit compares them.
    """

    sae: Sae
    format: str
    facts: Mapping[str, Any]
    assumed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    hook: str | None = None
    target_hook: str | None = None
    l0: float | None = None
    alternatives: Mapping[str, Sae] = field(default_factory=dict)


@dataclass(frozen=True)
class Read:
    """Result of a reader: the SAE, and what its files say of the model it is for (None: nothing)."""

    sae: Sae
    hook: str | None = None
    target_hook: str | None = None
    model: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    l0: float | None = None
    alternatives: Mapping[str, Sae] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedFormat:
    """One way to publish an SAE.

    `read` gets the opened files. `patterns` are the names of files that a download needs, as globs below the folder of
    one SAE; `versions` is what the reading was compared with.
    """

    name: str
    read: Callable[[Any], Read]
    patterns: tuple[str, ...]
    versions: str

    @property
    def description(self) -> str:
        """The reader's docstring: what the format holds."""
        return self.read.__doc__ or ""
