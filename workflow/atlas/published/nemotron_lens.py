"""nemotron-lens: SAELens' files with other defaults. Compared with nemotron-lens 0.1.0."""

from atlas.errors import ReadingError
from atlas.published.base import PublishedFormat, Read
from atlas.published.files import Release
from atlas.published.saelens import Defaults, layout_settings, read_layout

_VERSION = "nemotron-lens 0.1.0"
_DEFAULTS = Defaults(peer=_VERSION, architecture="jumprelu", apply_b_dec_to_input=False)


def read_nemotron_lens(release: Release) -> Read:
    """Read a JumpReLU SAE of nemotron-lens. The layout is SAELens', the defaults of missing keys are its own."""
    settings = layout_settings(release)
    read = read_layout(release, settings, _DEFAULTS)
    if read.sae.architecture != "jumprelu" or read.sae.is_transcoder or read.sae.row_scale is not None:
        raise ReadingError(
            f"{settings.path}: architecture is {settings.read.get('architecture')!r} and normalize_activations "
            f"{settings.read.get('normalize_activations')!r}, expected jumprelu and none, the only ones that "
            "nemotron-lens has; read it as saelens"
        )
    return read


NEMOTRON_LENS = PublishedFormat("nemotron_lens", read_nemotron_lens, ("cfg.json", "sae_weights.safetensors"), _VERSION)
