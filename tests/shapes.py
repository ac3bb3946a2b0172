"""Executes the array shapes in the library's annotations while tests run: one that is false fails a test.

Only annotations with a shape are checked: other types are the type checker's work, and tests may pass stand-ins.
Functions inside functions are left out: they would be prepared at every call.
"""

import ast
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import decode_source
from typing import get_args

from beartype import beartype
from jaxtyping import AbstractArray, jaxtyped

_LIBRARY = "jaxtyping"
_DECORATOR = "_with_checked_shapes"


def checked(function_or_class):
    """Check the shapes that the annotations of a function, or of a dataclass's fields, name."""
    if isinstance(function_or_class, type):
        if "__dataclass_fields__" in vars(function_or_class):
            function_or_class.__init__ = _checked(function_or_class.__init__)
        return function_or_class
    return _checked(function_or_class)


def _checked(function):
    whole = function.__annotations__
    function.__annotations__ = {name: each for name, each in whole.items() if _has_shape(each)}
    try:
        wrapped = jaxtyped(function, typechecker=beartype)
    finally:
        function.__annotations__ = whole
    # Jobs bind their inputs by annotations.
    wrapped.__annotations__ = whole
    return wrapped


def _has_shape(annotation) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return any(map(_has_shape, get_args(annotation)))


def with_checks(source: str, path: str = "<source>") -> ast.Module:
    """Parse a module, and decorate what has shapes in its annotations."""
    tree = ast.parse(source, path)
    names = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == _LIBRARY
        for alias in node.names
    }
    # Names that a module gives to shapes.
    for node in tree.body:
        if isinstance(node, ast.Assign) and _names(node.value) & names:
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    found = [node for node in tree.body if _decorate(node, names)]
    if found:
        first = next(
            number
            for number, node in enumerate(tree.body)
            if not isinstance(node, ast.Expr) and not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        )
        own = ast.ImportFrom(__name__, [ast.alias("checked", _DECORATOR)], 0)
        tree.body.insert(first, own)
    return ast.fix_missing_locations(tree)


def _decorate(node: ast.stmt, names: set[str]) -> bool:
    """Return whether the statement, or one of a class's, was decorated."""
    decorator = ast.Name(_DECORATOR, ast.Load())
    if isinstance(node, ast.FunctionDef):
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        written = [each.annotation for each in every if each is not None] + [node.returns]
        has_shape = any(names & _names(each) for each in written if each is not None)
        if has_shape:
            node.decorator_list.append(decorator)  # nearest to the function, whose annotations others hide
        return has_shape
    if isinstance(node, ast.ClassDef):
        inside = [_decorate(each, names) for each in node.body]
        fields = any(isinstance(each, ast.AnnAssign) and names & _names(each.annotation) for each in node.body)
        if fields:
            node.decorator_list.insert(0, decorator)  # after `dataclass` has made __init__
        return fields or any(inside)
    return False


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


class _Loader(SourceFileLoader):
    def get_code(self, fullname):
        path = self.get_filename(fullname)
        return compile(with_checks(decode_source(self.get_data(path)), path), path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, package: str):
        self._package = package

    def find_spec(self, fullname, path=None, target=None):
        if not fullname.startswith(f"{self._package}."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None
        if _LIBRARY.encode() not in spec.loader.get_data(spec.loader.path):
            return None
        spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install(package: str = "atlas") -> None:
    """Check the shapes of a package's modules that are imported from now on."""
    sys.meta_path.insert(0, _Finder(package))
