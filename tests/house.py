"""The house as its source shows it: every module, what it imports, and the modules that it names in its strings."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("core", "training", "export", "serving", "retraining", "cli")
ROOMS = (*PRODUCT, "scripts", "benchmarks", "tests")

_ROOM = f"(?:{'|'.join(ROOMS)})"
# `-m x.y` in a command, `-m, x.y` in a YAML list, `"-m", "x.y"` in a JSON list
_STARTED = re.compile(rf"(?<![\w-])-m[\s,\"'\\]+({_ROOM}(?:\.\w+)*)\b")
_MODULE = re.compile(rf"{_ROOM}(?:\.[a-z_]\w*)+")
# text that people or machines read; the changelog and the decisions tell of modules that were
_TEXTS = ("scripts/*", ".ci/*", "docs/**/*", "README.md", "model_store/README.md", "serving/**/*.config")


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its full name, packages too."""
    files = (path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


@cache
def tree(module: str) -> ast.Module:
    """The parsed source of a module."""
    return ast.parse(modules()[module].read_text())


@cache
def imports(module: str) -> frozenset[str]:
    """What a module imports, by full name, also inside functions and under TYPE_CHECKING.

    Of ours the module itself, even where the import says `from package import module`; of others what is written.
    """
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = _package_of(node, module)
            members = {f"{package}.{alias.name}" for alias in node.names}
            found |= {member if member in modules() else package for member in members}
    return frozenset(found)


def _package_of(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    is_package = modules()[module].name == "__init__.py"
    above = parts[: len(parts) - node.level + is_package]
    return ".".join([*above, *([node.module] if node.module else [])])


def strings(module: str) -> Iterator[str]:
    """Every string in a module's source, docstrings and the fixed parts of f-strings too."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@cache
def named(module: str) -> frozenset[str]:
    """The modules of ours that a module names in strings: alone (`"x.y"`), or started (`-m x.y`)."""
    found: set[str] = set()
    for text in strings(module):
        found |= set(_STARTED.findall(text)) | ({text} if _MODULE.fullmatch(text) else set())
    return frozenset(found)


def started_in_texts() -> Iterator[tuple[str, str]]:
    """(file, module) for every `-m module` of ours in scripts, configuration and documents."""
    for pattern in _TEXTS:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and path.suffix not in (".png", ".py") and path.name != "decisions.md":
                for module in _STARTED.findall(path.read_text()):
                    yield str(path.relative_to(ROOT)), module


def is_runnable(module: str) -> bool:
    """Whether `python -m module` does something."""
    file = modules().get(module)
    if file is None:
        return False
    return f"{module}.__main__" in modules() or 'if __name__ == "__main__":' in file.read_text()
