"""Errors that a user can act on.

Every message names the file or config key, the value found, what was expected and what to do about it.
"""


class AtlasError(Exception):
    """Base of all errors raised on purpose; anything else is a bug."""


class ConfigError(AtlasError):
    """The configuration is inconsistent; raised before any job is planned."""


class SourceError(AtlasError):
    """A model or corpus source is missing, altered, truncated or empty."""


class AuditError(AtlasError):
    """The activation pipeline of a model failed a check of its audit."""


class DamagedFileError(AtlasError, ValueError):
    """A file of results is truncated or altered."""


class StoreError(AtlasError):
    """An activation file is truncated, altered, or belongs to something else."""


class TrainingError(AtlasError):
    """Training cannot start, or met a value that makes its result meaningless."""


class EvaluationError(AtlasError):
    """A metric cannot be computed honestly from what was given."""


class CausalError(AtlasError):
    """An intervention cannot be made, or what comes of it is no number."""


class ExportError(AtlasError):
    """An SAE cannot be written in a peer's format, or the peer reads it otherwise."""


class ReadingError(AtlasError):
    """Files of a published SAE cannot be read, or evidently mean something else than what they were read as."""
