"""The triplets that are on every machine: what functions are said to do, and the functions."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse.typing import PositiveInt

from datamodules.text.bad_rows import BadRows
from datamodules.text.standard_library import TABLES_AND_TESTS, python_files
from datamodules.triplets.source import Example, TripletSource, fault_of
from run_store import UserError, sha256_of
from run_store.fingerprints import fingerprint

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """A file of Python."""

    name: str
    """Its path below the library's folder, or one that begins with the package."""
    path: Path


class DescribedFunction(NamedTuple):
    """A function and the first paragraph of its docstring."""

    description: str
    source: str
    line: int


class CodeSearchTriplets(TripletSource):
    """Mined from Python's own source: a docstring's first paragraph is the anchor, the function without its docstring
    the positive, and another function of the module the negative. The module is the group.

    Args:
        packages: Installed packages to mine; empty mines the running Python's standard library.
        same_module_negative: Whether an example has a negative; a module with one function gives none.
        min_words: Shorter descriptions are left out.
        min_lines: Functions with fewer lines, docstring and decorators not counted, are left out.
        exclude: Files left out, as patterns of `fnmatch` for the module's path; `*` matches slashes too.
    """

    def __init__(
        self,
        packages: Sequence[str] = (),
        same_module_negative: bool = True,
        min_words: PositiveInt = 3,
        min_lines: PositiveInt = 3,
        exclude: Sequence[str] = TABLES_AND_TESTS,
    ) -> None:
        self.packages = list(packages)
        self.same_module_negative = same_module_negative
        self.min_words: int = min_words
        self.min_lines: int = min_lines
        self.exclude = list(exclude)

    def read(self, bad: BadRows) -> Iterator[Example]:
        """Yields what is found, module by module in a pseudo-random order that the names alone decide.

        Raises:
            UserError: a package is not installed or holds no source of Python.
        """
        for module in self._modules():
            functions = [
                function
                for function in described_functions(module.path)
                if len(function.description.split()) >= self.min_words
                and function.source.count("\n") >= self.min_lines
                and fault_of(Example(function.description, function.source)) is None
            ]
            for function in functions:
                negatives = _another(function, functions, module.name) if self.same_module_negative else ()
                place = f"{module.path}:{function.line}"
                yield Example(function.description, function.source, negatives, None, module.name, place)

    def describe(self) -> dict[str, Any]:
        """Settings, and the version of Python, whose library and whose parser change with it."""
        return {
            "class": type(self).__name__,
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            "packages": self.packages,
            "same_module_negative": self.same_module_negative,
            "min_words": self.min_words,
            "min_lines": self.min_lines,
            "exclude": self.exclude,
        }

    def fingerprint(self) -> str:
        """Of the modules' names and contents.

        Raises:
            UserError: as `read`.
        """
        return fingerprint([[module.name, sha256_of(module.path)] for module in self._modules()])

    def _modules(self) -> list[Module]:
        if not self.packages:
            return self._modules_below(Path(sysconfig.get_path("stdlib")), "")
        return [module for package in self.packages for module in self._modules_of(package)]

    def _modules_of(self, package: str) -> list[Module]:
        # a dotted name would import what is above it, and mining runs nothing
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is not None and spec.submodule_search_locations:
            return self._modules_below(Path(next(iter(spec.submodule_search_locations))), f"{package}/")
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            return [Module(f"{package}.py", Path(spec.origin))]
        raise UserError(f"packages: no package {package!r} with source is installed: install it, or name another")

    def _modules_below(self, folder: Path, prefix: str) -> list[Module]:
        modules = [Module(prefix + name, folder / name) for name in python_files(folder, self.exclude, prefix)]
        if not modules:
            raise UserError(f"no Python source is left in {folder}: loosen `exclude` or choose another package")
        return modules


def described_functions(path: Path) -> list[DescribedFunction]:
    """The functions of a file that have a docstring and something else; none where the file cannot be parsed."""
    text = path.read_text(encoding="utf-8", errors="replace").lstrip("\ufeff")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the files' own backslashes
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return []
    lines = text.split("\n")  # as the parser counts them: a form feed ends none
    nodes = sorted((node for node in ast.walk(tree) if isinstance(node, Function)), key=lambda node: node.lineno)
    return [function for node in nodes if (function := _described(node, lines)) is not None]


def _described(node: Function, lines: Sequence[str]) -> DescribedFunction | None:
    docstring = ast.get_docstring(node, clean=False)
    if docstring is None or len(node.body) < 2:
        return None
    said, rest = node.body[:2]
    begin, end = said.lineno, said.end_lineno or said.lineno
    if begin == node.lineno or rest.lineno == end:
        return None  # shares a line with code
    kept = [*lines[node.lineno - 1 : begin - 1], *lines[end : node.end_lineno]]
    paragraph = inspect.cleandoc(docstring).split("\n\n")[0]
    source = textwrap.dedent("\n".join(kept)).rstrip()
    return DescribedFunction(" ".join(paragraph.split()), source + "\n", node.lineno)


def _another(function: DescribedFunction, functions: Sequence[DescribedFunction], module: str) -> tuple[str, ...]:
    """The source of another function of the module that is described otherwise; the texts alone decide which."""
    others = {other.source for other in functions if other.description != function.description}
    others -= {other.source for other in functions if other.description == function.description}

    def draw(source: str) -> bytes:
        return hashlib.blake2b(f"{module}\0{function.source}\0{source}".encode(), digest_size=16).digest()

    return (min(others, key=draw),) if others else ()
