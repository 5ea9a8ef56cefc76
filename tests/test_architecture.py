"""The arrows of the house, as docs/architecture.md draws them: who may know whom, by full module name.

Imports count wherever they stand, also inside functions and under TYPE_CHECKING; so does a module that is named in a
string, as another process is started by one.
"""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

import pytest

from tests.house import PRODUCT, ROOMS, ROOT, imports, is_runnable, modules, named, started_in_texts, strings, tree

KNOWS = {
    "core": (),
    "training": ("core",),
    "serving": ("core",),
    "export": ("core", "training", "serving"),
    "retraining": ("core", "training", "export", "serving"),
    "cli": ("core", "training", "export", "serving", "retraining"),
    "scripts": PRODUCT,
    "benchmarks": PRODUCT,
    "tests": ROOMS,
}

# within serving: a part, and the parts that it must not know
_ABOVE_COLLECTIONS = ("serving.engine", "serving.operations", "serving.protocol", "serving.torchserve")
_PROGRAMS = ("serving.client", "serving.jobs")
MUST_NOT_KNOW = {
    "serving.collection": (*_ABOVE_COLLECTIONS, "serving.inference", *_PROGRAMS),
    "serving.inference": (*_ABOVE_COLLECTIONS, *_PROGRAMS),
    "serving.protocol": (
        *("serving.engine", "serving.operations", "serving.collection", "serving.inference", "serving.torchserve"),
        *_PROGRAMS,
    ),
    "serving.operations": ("serving.engine", "serving.torchserve", *_PROGRAMS),
    "serving.engine": ("serving.torchserve", *_PROGRAMS),
    "serving.torchserve": _PROGRAMS,
    "serving.gateway": (
        *("serving.engine", "serving.operations", "serving.collection", "serving.inference", "serving.torchserve"),
        *_PROGRAMS,
    ),
    "serving.client": ("serving.engine", "serving.operations", "serving.inference", "serving.torchserve"),
}

# what the .mar leaves out, so that no worker may need it
NOT_IN_ARCHIVES = (
    *_PROGRAMS,
    "serving.gateway",
    "serving.torchserve.launch",
    "serving.torchserve.process",
    "serving.torchserve.carried",
    "serving.torchserve.command",
    "serving.torchserve.rollover",
)

CATALOGUES = ("serving.collection.catalogue.sqlite", "serving.collection.catalogue.postgres")
_SQL = re.compile(r"\b(SELECT\b.+\bFROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM|CREATE (TABLE|INDEX)|PRAGMA) ?", re.S)
_PICKLES = ("pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve")

# folders of tests that are about no single room, and who names modules that are not there now
ACROSS = ("compatibility",)
NAMES_OTHERS = ("tests.compatibility", "tests.test_architecture", "tests.cli.test_main")


def within(module: str, *packages: str) -> bool:
    """Whether a module is one of these packages, or lies in one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def of_product() -> list[str]:
    return [module for module in modules() if within(module, *PRODUCT)]


def known_to(module: str) -> set[str]:
    """The modules of ours that a module imports or names."""
    return {other for other in imports(module) | named(module) if within(other, *ROOMS)}


def reached_from(start: str) -> set[str]:
    """Every module of ours that a module needs, by imports or as a process that it starts."""
    reached, waiting = {start}, [start]
    while waiting:
        new = (known_to(waiting.pop()) & modules().keys()) - reached
        reached |= new
        waiting += new
    return reached


def lines(found: Iterable[tuple[str, str]]) -> list[str]:
    """What a failing test shows: one line for each arrow."""
    return sorted({f"{module} -> {other}" for module, other in found})


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_only_those_below_it(room: str) -> None:
    others = [(module, other) for module in modules() if within(module, room) for other in known_to(module)]
    assert not lines((module, other) for module, other in others if not within(other, room, *KNOWS[room]))


@pytest.mark.parametrize("part", MUST_NOT_KNOW)
def test_the_parts_of_serving_know_only_those_below_them(part: str) -> None:
    others = [(module, other) for module in modules() if within(module, part) for other in known_to(module)]
    assert not lines((module, other) for module, other in others if within(other, *MUST_NOT_KNOW[part]))


def test_a_worker_needs_only_what_its_archive_carries() -> None:
    needed = reached_from("serving.torchserve.handler")
    assert not sorted(module for module in needed if within(module, *NOT_IN_ARCHIVES))
    assert not sorted(module for module in needed if not within(module, "core", "serving"))


def test_no_modules_import_one_another_in_a_circle() -> None:
    graph = {module: imports(module) & modules().keys() for module in modules()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("imported in a circle: " + " <- ".join(error.args[1]))


def test_modules_named_in_strings_exist() -> None:
    ours = [module for module in modules() if not within(module, *NAMES_OTHERS)]
    found = [(module, other) for module in ours for other in named(module)]
    assert not lines((module, other) for module, other in found if other not in modules() and not _is_member(other))


def _is_member(name: str) -> bool:
    """Whether a dotted name is a module's attribute, as tests replace them."""
    module, _, attribute = name.rpartition(".")
    return module in modules() and re.search(rf"\b{attribute}\b", modules()[module].read_text()) is not None


def test_modules_started_from_texts_exist_and_run() -> None:
    assert not lines((file, module) for file, module in started_in_texts() if not is_runnable(module))


def test_nothing_loads_a_pickle() -> None:
    assert not [(module, line) for module in of_product() for line in _pickles(module)]


def _pickles(module: str) -> Iterator[int]:
    if any(within(other, *_PICKLES) for other in imports(module)):
        yield 1
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            if ast.unparse(node.func) == "torch.load":
                yield node.lineno
            if any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords):
                yield node.lineno


def test_serving_imports_torch_only_for_torchscript() -> None:
    rooms = [module for module in modules() if within(module, "core", "serving", "cli")]
    with_torch = [module for module in rooms if any(within(other, "torch", "torchvision") for other in imports(module))]
    assert all(within(module, "serving.inference") for module in with_torch), with_torch


def test_core_serving_and_the_command_line_load_without_torch() -> None:
    """One process imports every module of theirs; whatever they stand on may not bring torch either."""
    names = [module for module in modules() if within(module, "core", "serving", "cli")]
    check = (
        f"import sys, importlib\nfor name in {names}: importlib.import_module(name)\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


def test_only_the_catalogue_knows_its_database() -> None:
    rest = [module for module in of_product() if not within(module, *CATALOGUES)]
    assert not [
        module for module in rest if any(within(other, "apsw", "sqlite3", "psycopg") for other in imports(module))
    ]
    assert not [(module, text) for module in rest for text in strings(module) if _SQL.search(text)]


def test_only_core_locks_files() -> None:
    calls = {
        module
        for module in of_product()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and node.attr == "flock"
    }
    assert calls == {"core.files.locks"}


def test_the_rooms_of_the_tests_mirror_those_of_the_house() -> None:
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert not sorted(str(folder) for folder in folders if str(folder) not in ACROSS and not (ROOT / folder).is_dir())
