"""`simclr` itself: the table of commands, its help, a mistyped name, and what each start imports."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli import main as cli_main
from cli.main import GROUPS, ROWS, Row, UnknownCommand, main, parser_for
from core.command_line.command import Command

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "training", "export", "serving", "retraining", "cli")


def simclr(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    command = [sys.executable, "-m", "cli", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_row_says_what_its_command_says(row: Row) -> None:
    command = row.command()
    assert (row.name, row.summary) == (command.name, command.summary)
    assert len(row.summary) <= 70


def test_every_command_in_the_tree_has_a_row() -> None:
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    holders = [file for file in files if " Command(" in file.read_text() or "_command(" in file.read_text()]
    found = {}
    for file in holders:
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for attribute, value in vars(importlib.import_module(name)).items():
            if attribute.isupper() and isinstance(value, Command):
                found[name, attribute] = value.name
    assert {(row.module, row.attribute): row.name for row in ROWS}.items() <= found.items()
    assert set(found.values()) == {row.name for row in ROWS}


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_every_command_in_its_group(words: list[str]) -> None:
    done = simclr(*words)
    assert done.returncode == 0
    shown = done.stdout.splitlines()
    places = [shown.index(f"{title}:") for title in GROUPS]
    assert places == sorted(places)
    for row in ROWS:
        assert [row.name, *row.summary.split()] in [line.split() for line in shown]
    assert "simclr prepare --images" in done.stdout


def test_the_version() -> None:
    assert simclr("--version").stdout == "simclr 0.1.0\n"


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("serach", "simclr: there is no command 'serach'; did you mean 'search'?\n"),
        ("realeses", "simclr: there is no command 'realeses'; did you mean 'releases'?\n"),
        ("xyzzy", "simclr: there is no command 'xyzzy'; `simclr --help` lists them all\n"),
    ],
)
def test_a_mistyped_command_is_answered_with_the_nearest(
    typed: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([typed]) == 2
    assert capsys.readouterr().err == answer


@pytest.mark.parametrize("words", [["--help"], ["serach"]])
def test_an_answer_at_once_imports_no_other_room_and_nothing_from_elsewhere(words: list[str]) -> None:
    ours = {"cli", "cli.main", "core", "core.command_line", "core.command_line.command", "core.command_line.endings"}
    ours |= {"core.files", "core.files.permissions", "core.machine", "core.machine.interrupts"}
    check = f"""
import sys
from cli.main import main
try:
    main({words!r})
except SystemExit:
    pass
print(*sorted(name for name in sys.modules if name.split(".")[0] not in sys.stdlib_module_names), file=sys.stderr)
"""
    command = [sys.executable, "-S", "-c", check]  # -S: what site-packages imports at every start is not of ours
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stderr.splitlines()[-1].split()) - {"__main__", "__mp_main__"} == ours


@pytest.mark.parametrize("row", GROUPS["Ask a running server"], ids=lambda row: row.name)
def test_help_of_a_question_needs_no_client(row: Row) -> None:
    check = (
        f"import sys; from cli.main import parser_for; parser_for([{row.name!r}]).format_help(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"httpx", "numpy", "serving.client.client"} & set(done.stdout.split()) == set()


def test_parser_for_takes_the_words_after_simclr() -> None:
    words = ["search", "cat.jpg", "-k", "3"]
    given = parser_for(words).parse_args(words[1:])
    assert (given.images, given.k) == ([Path("cat.jpg")], 3)
    with pytest.raises(UnknownCommand, match="did you mean 'search'"):
        parser_for(["serach"])
    with pytest.raises(SystemExit, match="0"):
        parser_for(["--help"]).parse_args(["--help"])


def test_an_unknown_option_of_simclr_is_wrong_usage() -> None:
    done = simclr("--verbose")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unrecognized arguments: --verbose" in done.stderr


@pytest.mark.parametrize("where", ["import", "run"])
def test_a_command_whose_packages_are_missing_names_the_extra(
    where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = {"import": "import nosuchpackage", "run": "def _run(given):\n    import nosuchpackage.part"}
    (tmp_path / "lacking.py").write_text(
        "from core.command_line.command import Command\n"
        "def _run(given): return 0\n"
        f"{lines[where]}\n"
        "COMMAND = Command('lacking', 'Lack.', lambda parser: None, _run)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(cli_main._BY_NAME, "lacking", Row("lacking", "lacking", "Lack.", extra="train"))
    sys.modules.pop("lacking", None)
    expected = "`simclr lacking` needs nosuchpackage, which is not installed; it comes with the extra 'train'"
    if where == "import":
        with pytest.raises(SystemExit, match=expected):
            main(["lacking"])
    else:
        assert main(["lacking"]) == 1


def test_a_module_of_ours_that_is_missing_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli_main._BY_NAME, "gone", Row("gone", "training.gone", "Go.", extra="train"))
    with pytest.raises(ModuleNotFoundError):
        main(["gone"])
