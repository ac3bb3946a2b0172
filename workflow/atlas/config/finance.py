"""Settings of a study of training text: how much of finance each of its dictionaries sees."""

from pydantic import Field

from atlas.config.base import Name, Section


class Finance(Section):
    """Settings of measuring the SAEs of one study on financial text. docs/metrics.md, section 15."""

    corpus: Name = Field(description="Corpus of financial text; its held-out documents are used.")
    generic: Name = Field(description="Corpus of general text, from which drift starts.")
    rewritten: Name = Field(
        description="The same documents in another template: a corpus that differs from `corpus` in its wrapper alone."
    )
    moved: Name = Field(
        description="The same documents again, with as little around them as moves them within their contexts: what "
        "moving alone does is the null of what the other template does."
    )
    min_mass: float = Field(
        default=0.5, gt=0, lt=1, description="Share of a latent's mass on tokens of a kind that makes it of that kind."
    )
    min_firings: int = Field(default=10, ge=1, description="Firings below which a latent is of no kind.")
    shifts: int = Field(default=100, ge=20, description="Displacements of the kinds of tokens behind each null.")
