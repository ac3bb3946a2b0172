"""Type of a parameter that is the folder of files which a rule names."""

from pathlib import Path
from typing import Annotated

IS_FOLDER = "the folder in which the rule's files of this name are"
# Rules name files, of which Snakemake knows whether they are whole; functions read or fill the folder around them.
Folder = Annotated[Path, IS_FOLDER]
