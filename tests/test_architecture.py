"""The rules of the house, kept by reading the source: who may import whom, how long a file may be, what is never done.

The floors themselves stand in docs/architecture.md, in the table under "Floors", and are read from there.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = Path(__file__).resolve().parents[1]
MOST_LINES = 400
GROUND, MEZZANINE = -2, -1
PICKLES = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# Keywords that could let a file or a hub run its own code here, with the one value that they may be given.
GUARDED_KEYWORDS = {"trust_remote_code": False, "allow_pickle": False, "weights_only": True}
PATH_OF_ONE_MACHINE = re.compile(r"(?<![\w.~-])/(?:work|root|farm|home|mnt|scratch|Users)/")


# What there is


@cache
def project_files() -> list[str]:
    """Every file that is or may be committed, relative to the checkout; results, caches and environments are not."""
    found: list[str] = []
    for folder, inner, names in os.walk(CHECKOUT):
        inner[:] = [name for name in inner if not is_left_out(Path(folder, name))]
        found += [Path(folder, name).relative_to(CHECKOUT).as_posix() for name in names]
    return sorted(found)


def is_left_out(folder: Path) -> bool:
    return (
        folder.name in {"__pycache__", "build", "dist", "runs", "stores", "lightning_logs"}
        or folder.name.endswith(".egg-info")
        or (folder.name.startswith(".") and folder.name not in {".ci", ".github"})
        or (folder / "pyvenv.cfg").exists()
    )


def read(path: str) -> str:
    return (CHECKOUT / path).read_text(encoding="utf-8")


@cache
def every_source() -> dict[str, str]:
    """Path → source of every Python file, tests and benchmarks too."""
    return {path: read(path) for path in project_files() if path.endswith(".py")}


@cache
def house() -> dict[str, str]:
    """Path → source of main.py and of every file below a package: what the floors are about."""
    tops = {package.partition(".")[0] for package in declared_packages()}
    return {path: text for path, text in every_source().items() if path == "main.py" or path.partition("/")[0] in tops}


@cache
def declared_packages() -> set[str]:
    return set(tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]["packages"])


@cache
def floors() -> dict[str, int]:
    """Room → floor. A room is a folder and all below it (`a/`), the files of one folder (`a/*.py`), or one file."""
    rows = re.findall(r"^\| (ground|mezzanine|\d+) \| `(.+?)` \|", read("docs/architecture.md"), re.MULTILINE)
    low = {"ground": GROUND, "mezzanine": MEZZANINE}
    return {room: low[floor] if floor in low else int(floor) for floor, rooms in rows for room in rooms.split("`, `")}


def room_of(path: str) -> str | None:
    folder = path.rpartition("/")[0] + "/"
    below = (room for room in floors() if room.endswith("/") and folder.startswith(room))
    return next((room for room in [path, f"{folder}*.py", *below] if room in floors()), None)


# Who imports whom


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def parents(name: str) -> list[str]:
    """`a.b.c` → `a.b`, `a`."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]


def imported_names(path: str, source: str) -> Iterator[str]:
    """The dotted names that a file imports, at its top or inside functions: modules, or things in modules."""
    package = (
        [*module_name(path).split("."), "__init__"] if path.endswith("__init__.py") else module_name(path).split(".")
    )
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: -node.level], *filter(None, [node.module])] if node.level else [node.module or ""]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Path → the paths among `sources` that it imports."""
    path_of = {module_name(path): path for path in sources}
    graph: dict[str, set[str]] = {}
    for path, source in sources.items():
        candidates = ([name, *parents(name)] for name in imported_names(path, source))
        longest = (next((name for name in names if name in path_of), None) for names in candidates)
        graph[path] = {path_of[name] for name in longest if name} - {path}
    return graph


def load_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """The import graph, and the packages that Python loads on the way to a module unless they enclose the importer."""
    path_of = {module_name(path): path for path in sources}
    graph = import_graph(sources)
    for path, imported in graph.items():
        on_the_way = {name for target in imported for name in parents(module_name(target))}
        on_the_way -= {module_name(path), *parents(module_name(path))}
        imported |= {path_of[name] for name in on_the_way if name in path_of}
    return graph


# The rules: each returns one line for each breach, which says what to do


def homeless(paths: Iterable[str]) -> list[str]:
    return [f"{path}: give it a room in the table of docs/architecture.md" for path in paths if room_of(path) is None]


def upward_imports(sources: dict[str, str]) -> list[str]:
    breaches = []
    for path, imported in import_graph(sources).items():
        for target in sorted(imported):
            here, there = room_of(path), room_of(target)
            if here and there and here != there and floors()[here] <= floors()[there]:
                breaches.append(
                    f"{path} imports {target}, but {here} (floor {floors()[here]}) may import only from below, and "
                    f"{there} stands on floor {floors()[there]}: move what both need to a lower floor"
                )
    return breaches


def circles(sources: dict[str, str]) -> list[str]:
    try:
        TopologicalSorter(load_graph(sources)).prepare()
    except CycleError as error:
        return [f"{' ← '.join(error.args[1])}: an import circle; move what they share to a file of its own"]
    return []


def foreign_imports_on_the_ground(sources: dict[str, str]) -> list[str]:
    ground = [path for path in sources if floors().get(room_of(path) or "") == GROUND]
    allowed = sys.stdlib_module_names | {path.partition("/")[0] for path in ground}
    return [
        f"{path} imports {name}: the ground stands on the standard library alone"
        for path in ground
        for name in imported_names(path, sources[path])
        if name.partition(".")[0] not in allowed
    ]


def long_files(sources: dict[str, str]) -> list[str]:
    lengths = {path: len(source.splitlines()) for path, source in sources.items()}
    return [
        f"{path} has {length} lines: split it by what its parts know, to under {MOST_LINES}"
        for path, length in lengths.items()
        if length >= MOST_LINES
    ]


def code_in_init(sources: dict[str, str]) -> list[str]:
    def is_allowed(node: ast.stmt) -> bool:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        return is_docstring or is_all or isinstance(node, ast.Import | ast.ImportFrom)

    return [
        f"{path}:{node.lineno}: an __init__ holds names to re-export and nothing else; move this to a file of its own"
        for path, source in sources.items()
        if path.endswith("__init__.py")
        for node in ast.parse(source).body
        if not is_allowed(node)
    ]


def dangers(sources: dict[str, str]) -> list[str]:
    """Ways for a downloaded file to run code: pickles, and keywords that switch a library's protection off."""
    breaches = []
    for path, source in sources.items():
        breaches += [
            f"{path} imports {name}: store tensors as safetensors and the rest as JSON; "
            "to catch its error, write `from pickle import UnpicklingError`"
            for name in imported_names(path, source)
            if name.partition(".")[0] in PICKLES and name != "pickle.UnpicklingError"  # torch.load raises that one
        ]
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.keyword) and node.arg in GUARDED_KEYWORDS:
                safe = GUARDED_KEYWORDS[node.arg]
                if not (isinstance(node.value, ast.Constant) and node.value.value is safe):
                    breaches.append(f"{path}:{node.lineno}: {node.arg} must be {safe}, written out")
    return breaches


def paths_of_one_machine(path: str, text: str) -> list[str]:
    return [
        f"{path}:{number}: names a folder of one machine; make it relative, or a setting"
        for number, line in enumerate(text.splitlines(), start=1)
        if PATH_OF_ONE_MACHINE.search(line)
    ]


def undeclared_packages(paths: Iterable[str]) -> list[str]:
    folders = {module_name(path.rpartition("/")[0]) for path in paths if "/" in path}
    return [
        f"{folder}: list it in pyproject's [tool.setuptools] packages" for folder in folders - declared_packages()
    ] + [f"{name}: pyproject lists it, and there is no such package" for name in declared_packages() - folders]


# The house keeps them


def demand_none(breaches: list[str]) -> None:
    if breaches:
        pytest.fail("\n".join(breaches), pytrace=False)


def test_every_module_has_a_room() -> None:
    demand_none(homeless(house()))


def test_every_room_of_the_architecture_page_exists() -> None:
    empty = set(floors()) - {room_of(path) for path in house()}
    demand_none([f"{room}: no such room; mend the table of docs/architecture.md" for room in empty])


def test_imports_go_down() -> None:
    demand_none(upward_imports(house()))


def test_no_import_circles() -> None:
    demand_none(circles(house()))


def test_the_ground_needs_only_the_standard_library() -> None:
    demand_none(foreign_imports_on_the_ground(house()))


def test_files_are_short() -> None:
    demand_none(long_files(every_source()))


def test_init_files_hold_names_alone() -> None:
    demand_none(code_in_init(every_source()))


def test_nothing_downloaded_can_run_code() -> None:
    # Tests may forge a file that attacks, to see it refused.
    demand_none(dangers({path: text for path, text in every_source().items() if not path.startswith("tests/")}))


def test_no_paths_of_one_machine() -> None:
    breaches = []
    for path in project_files():
        try:
            breaches += paths_of_one_machine(path, read(path))
        except UnicodeDecodeError:  # a picture
            continue
    demand_none(breaches)


def test_packages_are_declared() -> None:
    demand_none(undeclared_packages(path for path in house()))


def test_configs_parse() -> None:
    configs = [path for path in project_files() if path.startswith("configs/") and path.endswith((".yaml", ".yml"))]
    assert configs, "configs/ holds no YAML file"
    for path in configs:
        assert isinstance(yaml.safe_load(read(path)), dict), f"{path}: a config is a mapping of settings"
        assert not re.search(r"trust_remote_code: *true", read(path), re.IGNORECASE), f"{path}: never trust remote code"


# And they are not blind


def test_the_floors_are_read_from_the_page() -> None:
    expected = {
        "run_store/": GROUND,
        "remote_files/": MEZZANINE,
        "datamodules/text/": 0,
        "backbones/": 1,
        "datamodules/*.py": 2,
        "callbacks/": 5,
    }
    assert expected.items() <= floors().items()
    assert room_of("datamodules/shards/reader.py") == "datamodules/shards/"
    assert room_of("datamodules/activations.py") == room_of("datamodules/__init__.py") == "datamodules/*.py"
    assert homeless(["servers/http.py"])


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("backbones/load.py", "from datamodules.activations import ActivationDataModule"),
        ("backbones/load.py", "def later():\n    import callbacks.progress"),
        ("backbones/load.py", "from lightning_modules import metrics"),
        ("datamodules/text/pack.py", "from datamodules.shards import ActivationStore"),
        ("datamodules/text/pack.py", "from ..shards.reader import ActivationStore"),
        ("datamodules/shards/reader.py", "from .. import activations"),
        ("datamodules/activations.py", "import lightning_modules"),
        ("run_store/atomic.py", "if TYPE_CHECKING:\n    from cli import console"),
    ],
)
def test_an_upward_import_is_seen(path: str, source: str) -> None:
    others = ["datamodules/shards/__init__.py", "datamodules/shards/reader.py", "datamodules/activations.py"]
    others += ["lightning_modules/__init__.py", "lightning_modules/metrics/__init__.py", "cli/console.py"]
    sources = dict.fromkeys([*others, "callbacks/progress.py"], "") | {path: source}
    assert [line.partition(" ")[0] for line in upward_imports(sources)] == [path]


def test_a_downward_import_is_allowed() -> None:
    sources = {"datamodules/__init__.py": "", "datamodules/shards/reader.py": "from . import writer"}
    sources |= {"datamodules/shards/writer.py": "import run_store", "run_store/__init__.py": ""}
    sources |= {"datamodules/activations.py": "import torch\nfrom datamodules.shards.reader import ActivationStore"}
    assert upward_imports(sources) == circles(sources) == foreign_imports_on_the_ground(sources) == []


def test_a_circle_is_seen() -> None:
    assert circles({"cli/a.py": "import cli.b", "cli/b.py": "def later():\n    from .a import x"})
    assert circles({"cli/__init__.py": "from cli.a import x", "cli/a.py": "from cli import x"})


def test_a_circle_through_a_package_loaded_on_the_way_is_seen() -> None:
    sources = {"backbones/__init__.py": "from backbones.extract import x", "datamodules/text/__init__.py": ""}
    sources |= {"backbones/extract.py": "from datamodules.text import y", "datamodules/__init__.py": ""}
    sources |= {"datamodules/activations.py": "from backbones import x"}
    assert circles(sources) == []
    assert circles(sources | {"datamodules/__init__.py": "from datamodules.activations import z"})


def test_other_breaches_are_seen() -> None:
    assert foreign_imports_on_the_ground({"run_store/a.py": "import os, torch"})
    assert long_files({"a.py": "\n" * MOST_LINES})
    assert not long_files({"a.py": "\n" * (MOST_LINES - 1)})
    assert code_in_init({"a/__init__.py": '"""Doc."""\nfrom a.b import c\n__all__ = ["c"]\nX = 1'}) != []
    assert code_in_init({"a/__init__.py": '"""Doc."""\nfrom a.b import c\n__all__ = ["c"]\n'}) == []
    assert (
        len(dangers({"a.py": "import pickle\nload(trust_remote_code=x, weights_only=False, allow_pickle=True)"})) == 4
    )
    assert (
        dangers({"a.py": "from pickle import UnpicklingError\nload(weights_only=True, trust_remote_code=False)"}) == []
    )
    assert paths_of_one_machine("a.md", "see " + "/".join(["", "root", "notes"]))
    assert not paths_of_one_machine("a.md", "see docs/" + "/".join(["work", "notes"]))
    assert undeclared_packages(["unheard_of/a.py"])
