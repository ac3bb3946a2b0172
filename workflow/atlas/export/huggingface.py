"""A folder for a Hugging Face model repository: the model card, the run card, and the SAE in the SAELens layout.

The SAE lies in a folder named by its hook, as SAELens itself uploads them, so that `SAE.from_pretrained(repository,
hook)` finds it, and several SAEs fit into one repository.
"""

import shutil
from pathlib import Path

from atlas.export import saelens
from atlas.export.model_card import model_card
from atlas.export.source import CARD_FILE, TrainedSae
from atlas.files import atomic_path, write_text


def write(trained: TrainedSae, folder: Path) -> None:
    """Write the SAE, its run card as it is, and the model card."""
    saelens.write(trained, folder / str(trained.hooks))
    with atomic_path(folder / CARD_FILE) as temporary:
        shutil.copyfile(trained.folder / CARD_FILE, temporary)
    write_text(folder / "README.md", model_card(trained))
