"""Small wheels made on the spot, and the configuration that names them."""

import hashlib
import zipfile
from pathlib import Path

from atlas.config.sources import PackageSource


def make_wheel(folder: Path, files: dict[str, bytes], package: str = "tinydata", version: str = "1.0") -> Path:
    """A wheel that pip accepts, holding `files` besides its metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{package}-{version}-py3-none-any.whl"
    info = f"{package}-{version}.dist-info"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")
    return path


def source_of(wheel: Path, member: str = "tinydata/text.jsonl", **changes) -> PackageSource:
    """The package source that names `wheel`, with its true hash unless changed."""
    fields = {
        "kind": "package",
        "package": "tinydata",
        "version": "1.0",
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "member": member,
        "licence": "CC0-1.0",
    }
    return PackageSource(**(fields | changes))
