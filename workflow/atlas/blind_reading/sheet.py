"""The page that readers mark: contexts alone, in one file that needs no server and sends nothing."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from atlas.blind_reading.items import Item, ReadSae, Sheet, make_sheet, sheet_id
from atlas.config.reading import Reading
from atlas.errors import DamagedFileError
from atlas.files import atomic_path, read_json, write_json
from atlas.folder import Folder
from atlas.sae_ids import SaeId
from atlas.site.pages import FOLDER, without_indentation, write_page


def write_reading_sheet(
    study: str,
    saes: Sequence[str],
    models: Sequence[Path],
    folders: Sequence[Folder],
    corpora: Sequence[Sequence[str]],
    twins: Sequence[str | None],
    codes: Sequence[Path],
    random: Sequence[Path],
    settings: Reading,
    page: Path,
    key: Path,
) -> None:
    """Write the sheet of a study. `saes` are ids, each with its model, folder, corpora, and the kind of a twin.

    Codes follow in that order, random ones of those that are no twins.

    Raises EvaluationError when fewer latents fire than the sheet asks for.
    """
    own, nulls, read = iter(codes), iter(random), []
    for sae_id, model, folder, names, twin in zip(saes, models, folders, corpora, twins, strict=True):
        own_id = SaeId.parse(sae_id)
        files = {name: next(own) for name in names}
        random_files = {name: next(nulls) for name in names} if twin is None else {}
        read.append(ReadSae(sae_id, folder, str(own_id.hooks), own_id.seed, model, files, random_files, twin))
    write_sheet(study, read, settings, page, key)


def write_sheet(study: str, saes: Sequence[ReadSae], settings: Reading, page: Path, key: Path) -> None:
    """Write the sheet of a study and its key: which latent each item is.

    Raises EvaluationError when fewer latents fire than the sheet asks for.
    """
    sheet = make_sheet(study, saes, settings)
    kinds = json.dumps({item.number: item.dictionary for item in sheet.items})
    # The page names its script by hash; templates are written without indentation, so the script is too.
    script = without_indentation((FOLDER / "assets" / "reading.js").read_text(encoding="utf-8"))
    with atomic_path(page) as temporary:
        write_page(
            temporary,
            "reading.html",
            "",
            study=study,
            sheet=sheet.sheet_id,
            items=[(item.number, lines) for item, lines in zip(sheet.items, sheet.contexts, strict=True)],
            # Readers who look at the page's source are not told by accident.
            kinds=base64.b64encode(kinds.encode()).decode(),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            style=(FOLDER / "assets" / "atlas.css").read_text(encoding="utf-8"),
        )
    write_json(key, {"study": study, "sheet": sheet.sheet_id, "items": [asdict(item) for item in sheet.items]})


def read_key(path: Path) -> Sheet:
    """Read the key of a sheet, without contexts. Raises DamagedFileError when it is not as it was written."""
    found = read_json(path)
    items = tuple(Item(**item) for item in found["items"])
    if found["sheet"] != sheet_id(found["study"], items):
        raise DamagedFileError(f"{path}: items do not belong to sheet {found['sheet']!r}; delete it and run again")
    return Sheet(found["study"], items, ())
