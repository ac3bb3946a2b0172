"""Hashes of the code that a job can run: a script, every module that it imports, and the files that these name.

The imports are read from the source, those inside functions too; nothing is imported for it. The hash covers syntax
trees without comments, docstrings and descriptions of configuration keys, so that only an edit of code changes it.
"""

import ast
import gc
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atlas.errors import AtlasError
from atlas.files import sha256_file, sha256_strings

# Scripts of other tools: environments of their own run them, and they import each other by name.
PEERS = "peers"


class CodeError(AtlasError):
    """Code that a job needs and that is not there, or is no Python."""


@dataclass(frozen=True)
class _Module:
    digest: str
    needed: frozenset[str]  # modules that it imports or runs, and other files that it names


class Code:
    """Python code below a folder: the library `atlas`, and scripts. Each file is read once."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._files = _files_below(folder)
        self._assets = _assets_of(sorted(self._files))
        self._read: dict[str, _Module] = {}
        self._modules: dict[tuple[str, str], tuple[str, ...]] = {}

    def hash_of(self, *entries: str) -> str:
        """Hash of everything that the files `entries` reach."""
        return sha256_strings(part for name in self.reached(*entries) for part in (name, self._module(name).digest))

    def reached(self, *entries: str) -> list[str]:
        """Files that the files `entries` reach, themselves included, sorted; all names are relative to the folder.

        Raises CodeError for an entry or an import of this code that does not exist.
        """
        for entry in entries:
            self.require(entry)
        found, left = set(entries), list(entries)
        with _no_garbage_collection():
            while left:
                new = self._module(left.pop()).needed - found
                found |= new
                left += new
        return sorted(found)

    def files_of(self, module: str) -> tuple[str, ...]:
        """File of a module of the library and of the packages around it. Raises CodeError if there is none."""
        files = self._files_of("", module)
        if not files:
            raise CodeError(f"{self._folder}: has no module {module}; correct the name")
        return files

    def require(self, entry: str) -> None:
        """Raises CodeError unless there is such a file."""
        if entry not in self._files:
            raise CodeError(f"{self._folder / entry}: no such file; expected a script or module that a job runs")

    def _module(self, name: str) -> _Module:
        if name not in self._read:
            is_code = name.endswith(".py")
            self._read[name] = self._parse(name) if is_code else _Module(sha256_file(self._folder / name), frozenset())
        return self._read[name]

    def _parse(self, name: str) -> _Module:
        path = self._folder / name
        try:
            tree = ast.parse(path.read_bytes(), str(path))
        except (SyntaxError, ValueError) as error:
            raise CodeError(f"{path}: not Python ({error}); repair this file, a job imports it") from error
        reader = _Reader()
        reader.read(tree)
        needed = {file for statement in reader.imports for file in self._imported(name, statement)}
        needed |= {file for text in reader.strings for file in self._named(name.rpartition("/")[0], text)}
        digest = hashlib.sha256("\0".join(reader.parts).encode("utf-8", "backslashreplace")).hexdigest()
        return _Module(digest, frozenset(needed - {name}))

    def _imported(self, name: str, statement: ast.Import | ast.ImportFrom) -> Iterator[str]:
        """Files of a statement's modules, with the packages around them."""
        own = name.rpartition("/")[0]
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield from self._required(name, own, alias.name)
            return
        above = own.split("/")[: len(own.split("/")) + 1 - statement.level] if statement.level else []
        module = ".".join([*above, *([statement.module] if statement.module else [])])
        yield from self._required(name, own, module)
        for alias in statement.names:  # a module or a value of one
            yield from self._found(own, f"{module}.{alias.name}")

    def _required(self, name: str, own: str, module: str) -> tuple[str, ...]:
        found = self._found(own, module)
        if not found and module.partition(".")[0] == "atlas":
            raise CodeError(f"{self._folder / name}: imports {module}, which does not exist; mend the import")
        return found

    def _found(self, own: str, module: str) -> tuple[str, ...]:
        """Files of a module, for a file in the folder `own`; none if it is not of this code."""
        # As Python looks: a script's own folder, the library's root, and `peers`, which a module of ours appends.
        for root in ("" if own.startswith("atlas") else own, "", PEERS):
            if (root, module) not in self._modules:
                self._modules[root, module] = self._files_of(root, module)
            if found := self._modules[root, module]:
                return found
        return ()

    def _files_of(self, root: str, module: str) -> tuple[str, ...]:
        files, path = [], root
        for part in module.split("."):
            path = f"{path}/{part}" if path else part
            file = next((file for file in (f"{path}.py", f"{path}/__init__.py") if file in self._files), None)
            if file is None:
                return ()
            files.append(file)
        return tuple(files)

    def _named(self, own: str, text: str) -> list[str]:
        """Files that a string of a module in the folder `own` names: a script that it runs, files that it reads."""
        if text.endswith(".py"):
            return [file for file in (f"{own}/{text}", f"{PEERS}/{text}") if file in self._files]
        return self._assets.get((own, text), [])


def _assets_of(files: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    """Style sheets, templates, tables of the library: by a folder above them, and what a module in it can call them.

    That is their path, or the folder on it that holds no code.
    """
    packages = {file.rpartition("/")[0] for file in files if file.endswith(".py")}
    named: dict[tuple[str, str], list[str]] = {}
    for file in files:
        if file.startswith("atlas/") and not file.endswith(".py"):
            parts = file.split("/")
            for start in range(1, len(parts)):
                for end in range(start + 1, len(parts) + 1):
                    if "/".join(parts[:end]) not in packages:
                        named.setdefault(("/".join(parts[:start]), "/".join(parts[start:end])), []).append(file)
    return named


def _files_below(folder: Path) -> frozenset[str]:
    found = set()
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        start = Path(place).relative_to(folder).as_posix()
        found |= {name if start == "." else f"{start}/{name}" for name in files}
    return frozenset(found)


class _Reader:
    """Names and values of a syntax tree in order, what it imports, and the strings that are values.

    Empty fields are left out, in which versions of Python differ; hence no `ast.dump`.
    """

    def __init__(self):
        self.parts: list[str] = []
        self.imports: list[ast.Import | ast.ImportFrom] = []
        self.strings: set[str] = set()

    def read(self, node: ast.AST) -> None:
        """Take in a tree."""
        kind, parts = type(node), self.parts
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                self.strings.add(node.value)
            parts.append(repr(node.value))
            return
        parts.append(kind.__name__)
        if isinstance(node, ast.Import | ast.ImportFrom):
            self.imports.append(node)
        for field in node._fields:
            value = getattr(node, field, None)
            if value is None or value == []:
                continue
            parts.append(field)
            if type(value) is list:
                self._read_list(node, field, value)
            elif isinstance(value, ast.AST):
                self.read(value)
            else:
                parts.append(repr(value))

    def _read_list(self, node: ast.AST, field: str, values: list) -> None:
        for value in values:
            if not isinstance(value, ast.AST):
                self.parts.append(repr(value))
            elif not _is_without_effect(node, field, value):
                self.read(value)
        self.parts.append("]")


def _is_without_effect(node: ast.AST, field: str, value: ast.AST) -> bool:
    """Return whether a part of a node is a docstring, an import for type checkers alone, or the description of a
    key.
    """
    if field == "keywords":
        described = isinstance(value, ast.keyword) and value.arg == "description"
        return described and isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Field"
    if isinstance(value, ast.Expr):
        return isinstance(value.value, ast.Constant) and isinstance(value.value.value, str)
    return isinstance(value, ast.If) and isinstance(value.test, ast.Name) and value.test.id == "TYPE_CHECKING"


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Syntax trees are a million objects, all kept until they are hashed: searching them takes half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
