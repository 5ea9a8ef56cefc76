"""The package: what its wheel holds, what it asks for, and what of it works with the light client's packages alone."""

import ast
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "training", "export", "serving", "retraining", "cli")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = PROJECT["name"]
# where each room's packages come from; a file is judged by the longest path that it lies under
EXTRAS = {
    "core": "",
    "cli": "",
    "serving/client": "",
    "serving": "serve",
    "serving/gateway/traces.py": "traces",
    "serving/collection/index/milvus": "milvus",
    "training": "train",
    "export": "train",
    "retraining": "train",
}


def brought_by(extra: str) -> dict[str, Requirement]:
    """Every requirement of the package with an extra, by name; extras that an extra names count too."""
    found: dict[str, Requirement] = {}
    for requirement in map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"].get(extra, [])]):
        if requirement.name == OWN:
            for other in requirement.extras:
                found |= brought_by(other)
        else:
            found[requirement.name] = requirement
    return found


def pinned() -> dict[str, Requirement]:
    lines = [*(ROOT / "requirements.txt").read_text().splitlines()]
    return {one.name: one for line in lines if line and not line.startswith("#") for one in [Requirement(line)]}


def imported(file: Path) -> Iterator[str]:
    """The top-level names of all modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)


def extra_of(file: Path) -> str:
    path = file.relative_to(ROOT).as_posix()
    return EXTRAS[max((start for start in EXTRAS if f"{path}/".startswith(f"{start}/")), key=len)]


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_imports_is_brought_by_its_extra(room: str) -> None:
    distributions = packages_distributions()
    for file in (ROOT / room).rglob("*.py"):
        names = set(imported(file)) - sys.stdlib_module_names - set(ROOMS)
        extra = extra_of(file)
        for name in names - ({"grpc"} if extra == "milvus" else set()):  # pymilvus stands on it
            owners = {canonicalize_name(owner) for owner in distributions.get(name, [name])}
            assert owners & brought_by(extra).keys(), f"{file} imports {name}"


@pytest.mark.parametrize("extra", ["", "serve", "train"])
def test_what_an_extra_brings_is_pinned_and_its_lower_bound_reached(extra: str) -> None:
    exact = pinned()
    for name, requirement in brought_by(extra).items():
        (specifier,) = exact[name].specifier
        assert specifier.operator == "=="
        assert requirement.specifier.contains(specifier.version)


def test_everything_pinned_belongs_to_the_package_or_builds_it() -> None:
    assert pinned().keys() - brought_by("train").keys() == {"hatchling"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, folder, ROOT], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_rooms_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {file for room in ROOMS for file in (ROOT / room).rglob("*") if file.is_file()}
    expected = {file.relative_to(ROOT).as_posix() for file in files if "__pycache__" not in file.parts}
    assert held == expected
    assert {Path(name).suffix for name in held} == {".css", ".jinja", ".py", ".xml"}


def test_the_wheel_has_the_command_and_the_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (about,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        (points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "simclr = cli.main:main" in archive.read(points).decode()
        lines = archive.read(about).decode().splitlines()
    assert {line for line in lines if line.startswith("Provides-Extra")} == {
        "Provides-Extra: milvus",
        "Provides-Extra: serve",
        "Provides-Extra: traces",
        "Provides-Extra: train",
    }


def test_an_editable_install_is_the_checkout_on_the_path(tmp_path: Path) -> None:
    build = f"import hatchling.build; hatchling.build.build_editable({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True)
    (built,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        (link,) = [name for name in archive.namelist() if name.endswith(".pth")]
        assert archive.read(link).decode().strip() == str(ROOT)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--disable-pip-version-check", "--target"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, folder, wheel], check=True)
    return folder


def alone(installed: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code where only the packages that the light client asks for, and theirs, can be imported."""
    light = sorted(brought_by("").keys())
    prelude = f"""
import importlib.metadata as metadata, sys
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as same
wanted, allowed = {light!r}, set()
while wanted:
    if (name := same(wanted.pop())) in allowed:
        continue
    allowed.add(name)
    requirements = [Requirement(line) for line in metadata.requires(name) or []]
    wanted += [one.name for one in requirements if one.marker is None or one.marker.evaluate({{"extra": ""}})]
heavy = {{name for name, owners in metadata.packages_distributions().items()
         if not {{same(owner) for owner in owners}} & allowed}} - {set(ROOMS)!r}
class Blocked:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in heavy:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
for name in [name for name in sys.modules if name.split(".")[0] in heavy]:
    del sys.modules[name]
sys.meta_path.insert(0, Blocked)
sys.path.insert(0, {str(installed)!r})
"""
    command = [sys.executable, "-I", "-c", f"{prelude}\n{code}"]
    return subprocess.run(command, cwd=installed, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words", [["--help"], ["search", "--help"], ["upsert", "--help"], ["snapshot", "--help"], ["completion", "bash"]]
)
def test_with_the_light_packages_alone_a_server_can_be_asked(installed: Path, words: list[str]) -> None:
    done = alone(installed, f"from cli.main import main; sys.exit(main({words!r}))")
    assert (done.returncode, done.stderr) == (0, "")
    assert "simclr" in done.stdout


def test_with_the_light_packages_alone_images_are_sent_to_a_server(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").touch()
    words = ["ingest", str(tmp_path), "--url", "http://127.0.0.1:9"]
    done = alone(installed, f"from cli.main import main; sys.exit(main({words!r}))")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: no answer from http://127.0.0.1:9")


def test_with_the_light_packages_alone_the_client_is_imported_from_where_it_was_installed(installed: Path) -> None:
    done = alone(
        installed, "from serving.client import AsyncClient, Client, ServerError; print(sys.modules['serving'].__file__)"
    )
    assert (done.stderr, done.stdout.strip()) == ("", str(installed / "serving" / "__init__.py"))


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["serve", "--store", "store", "--name", "photos"], "serve"),
        (["bulk", "photographs", "--release", "release", "--out", "out"], "serve"),
        (["embed", "cat.jpg", "--out", "cat.npy"], "serve"),
        (["pretrain", "--data", "data", "--out", "out"], "train"),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else given,
)
def test_a_command_that_lacks_its_extra_says_which(installed: Path, words: list[str], extra: str) -> None:
    done = alone(installed, f"from cli.main import main; sys.exit(main({words!r}))")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: `simclr {words[0]}` needs ")
    assert f"pip install '.[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
