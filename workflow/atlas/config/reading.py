"""Blind reading: how many latents a person is shown, and the files with what readers marked."""

from pydantic import Field

from atlas.config.base import Name, Section


class Reading(Section):
    """A sheet on which people mark what latents mean: `snakemake --cores 2 results/<study>_reading.html`."""

    latents: int = Field(default=40, ge=1, description="Latents of a study's SAEs on its sheet, over all SAEs.")
    random_latents: int = Field(
        default=20, ge=0, description="Latents of the random dictionaries on the sheet, shuffled among them."
    )
    twin_latents: int = Field(
        default=20, ge=0, description="Latents of the twins on the sheet, over all twins; 0 in a study without twins."
    )
    contexts: int = Field(default=12, ge=1, description="Strongest contexts of a latent, one per document.")
    window_tokens: int = Field(default=11, ge=1, description="Tokens of a context on either side.")
    seed: int = Field(default=0, ge=0, description="Seed of the draw: another one gives a sheet of other latents.")
    votes: dict[Name, tuple[str, ...]] = Field(
        default={},
        description="Files that readers saved, by study: what `results/<study>_reading.csv` is made from.",
    )
