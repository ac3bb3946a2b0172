"""Read parameters of the library's functions from the source, without importing it, and check rules against them.

A rule names a function as `atlas.<module>.<function>`. A parameter that is a dataclass has fields. A rule gives these
one by one under their own names, unless it gives the whole as a param.
"""

import ast
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from atlas.errors import AtlasError

# What the call itself knows, without a name in the rule.
DEVICE, THREADS = "torch.device", "threads"
# The param that a rule's message shows; no function takes it.
NOTE = "note"
# Suffix of the param that has the keys of a mapping whose values are files of the rule.
BY = "_by"


class CallError(AtlasError):
    """A rule and the function that it names do not fit."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function, or a field of a dataclass."""

    name: str
    annotation: str
    required: bool
    fields: tuple["Parameter", ...] = ()  # of a dataclass
    is_mapping: bool = False  # from keys to values, or to dataclasses with these fields


def module_of(function: str) -> str:
    """File of a function's module, relative to the folder `workflow`. Raises CallError for a name without a module."""
    module = function.rpartition(".")[0]
    if not module.startswith("atlas.") or not all(part.isidentifier() for part in function.split(".")):
        raise CallError(f"{function!r} is no function of the library; expected atlas.<module>.<function>")
    return f"{module.replace('.', '/')}.py"


class Signatures:
    """Signatures of functions of the library below a folder. Each file is parsed once."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._bodies: dict[str, dict[str, ast.stmt]] = {}

    def of(self, function: str) -> tuple[Parameter, ...]:
        """Parameters of a function. Raises CallError if there is none of this name."""
        file, name = module_of(function), function.rpartition(".")[2]
        body = self._body(file)
        found = None if body is None else body.get(name)
        if not isinstance(found, ast.FunctionDef):
            lacks = "there is no such file" if body is None else f"that file defines no function {name}"
            raise CallError(f"{self._folder / file}: the rule names {function}, and {lacks}; correct the name")
        return tuple(self._parameters(file, found))

    def _body(self, file: str) -> dict[str, ast.stmt] | None:
        """Functions, classes and imported names of a file by name."""
        if file not in self._bodies:
            path = self._folder / file
            if not path.is_file():
                return None
            names = {}
            for statement in ast.parse(path.read_bytes(), str(path)).body:
                if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                    names[statement.name] = statement
                elif isinstance(statement, ast.ImportFrom):
                    names |= {alias.asname or alias.name: statement for alias in statement.names}
            self._bodies[file] = names
        return self._bodies[file]

    def _parameters(self, file: str, function: ast.FunctionDef) -> Iterator[Parameter]:
        arguments = function.args
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
        pairs = [
            *zip(positional, defaults, strict=True),
            *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
        ]
        for argument, default in pairs:
            yield self._parameter(file, argument.arg, argument.annotation, default is None)

    def _parameter(self, file: str, name: str, annotation: ast.expr | None, required: bool) -> Parameter:
        text = "" if annotation is None else ast.unparse(annotation)
        is_mapping, value = _value_of(annotation)
        return Parameter(name, text, required, self._fields(file, value), is_mapping)

    def _fields(self, file: str, annotation: ast.expr | None) -> tuple[Parameter, ...]:
        """Fields of the dataclass that an annotation of a file names; none of anything else."""
        while isinstance(annotation, ast.Name):
            found = (self._body(file) or {}).get(annotation.id)
            if isinstance(found, ast.ClassDef):
                return tuple(self._fields_of(file, found)) if _is_dataclass(found) else ()
            if not isinstance(found, ast.ImportFrom) or not found.module or not found.module.startswith("atlas."):
                return ()
            file = f"{found.module.replace('.', '/')}.py"
        return ()

    def _fields_of(self, file: str, defined: ast.ClassDef) -> Iterator[Parameter]:
        for statement in defined.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                default = statement.value
                keys: set[str | None] = {"default"}
                if isinstance(default, ast.Call) and isinstance(default.func, ast.Name) and default.func.id == "field":
                    keys = {each.arg for each in default.keywords}
                required = default is None or not keys & {"default", "default_factory"}
                yield self._parameter(file, statement.target.id, statement.annotation, required)


def _value_of(annotation: ast.expr | None) -> tuple[bool, ast.expr | None]:
    """Return (True, type of the values) for a mapping type, else (False, the type without `| None`)."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _value_of(annotation.left)
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name):
        is_mapping = annotation.value.id in ("dict", "Mapping")
        parts = annotation.slice
        return is_mapping, parts.elts[1] if is_mapping and isinstance(parts, ast.Tuple) else None
    return False, annotation


def _is_dataclass(defined: ast.ClassDef) -> bool:
    decorators = [each.func if isinstance(each, ast.Call) else each for each in defined.decorator_list]
    return any(isinstance(each, ast.Name) and each.id == "dataclass" for each in decorators)


def check_call(
    rule: str,
    function: str,
    parameters: Collection[Parameter],
    given: Collection[str],
    free: Collection[str] = (),
) -> None:
    """Raises CallError unless a rule gives every parameter of a function that has no default, and nothing else.

    `given` are names of the rule's inputs, outputs and params. `free` are names of its wildcards, which may go unused.
    """
    names = {*given, *free, THREADS}
    if twice := [name for name, times in Counter(given).items() if times > 1]:
        raise CallError(f"rule {rule} gives {twice[0]!r} twice, of input, output and params; rename one for {function}")
    used: set[str] = set()
    lacking = [path for each in parameters for path in _lacking(each, names, used)]
    if lacking:
        raise CallError(
            f"rule {rule} calls {function}, and gives nothing for its parameter {lacking[0]}; name an input, an output "
            f"or a param so, or give the parameter a default (the rule gives: {', '.join(sorted(given)) or 'nothing'})"
        )
    if surplus := sorted(set(given) - used - set(free)):
        raise CallError(
            f"rule {rule} gives {surplus[0]!r}, which {function} does not take; its parameters are "
            f"{', '.join(sorted(_names(parameters)))}; take the name away if the job only waits for it, or correct it"
        )


def _lacking(parameter: Parameter, names: Collection[str], used: set[str], path: str = "") -> list[str]:
    """Required parts of a parameter that no name stands for; adds to `used` the names that stand for some."""
    own = f"{path}{parameter.name}"
    keys = parameter.name + BY
    if parameter.annotation == DEVICE:
        return []
    if parameter.is_mapping and keys in names:
        used.add(keys)
        if not parameter.fields:
            used.add(parameter.name)
            return [] if parameter.name in names else [own]
    elif parameter.name in names:
        used.add(parameter.name)
        return []
    elif not parameter.fields or parameter.is_mapping:
        return [own] if parameter.required else []
    in_fields: set[str] = set()
    lacking = [each for field in parameter.fields for each in _lacking(field, names, in_fields, f"{own}.")]
    if lacking and not parameter.required:
        return []
    used |= in_fields
    return lacking


def _names(parameters: Collection[Parameter]) -> Iterator[str]:
    for each in parameters:
        yield each.name
        yield from _names(each.fields)
