"""README and docs against the program: commands parse, options and fields are documented, links and files exist."""

import argparse
import ast
import importlib
import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from cli.main import ROWS, Row, parser_for
from serving.protocol.operations import OPERATIONS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]
ROOMS = ("core", "training", "export", "serving", "retraining", "cli")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
SEPARATORS = {"&&", "||", "|", ";"}


class Line(NamedTuple):
    """A command that a page shows, as words, and whether it stands in a block of its own, whole."""

    page: Path
    words: list[str]
    whole: bool

    def __str__(self) -> str:
        return f"{self.page.name}: {shlex.join(self.words)}"


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of a page in one of these languages ("" for none)."""
    return (body for language, body in FENCE.findall(page.read_text()) if language in languages)


def lines_of(page: Path) -> Iterator[Line]:
    """Every command that the page shows, in blocks (also of systemd units) and in the text."""
    for body in blocks(page, "", "bash", "ini"):
        for text in body.replace("\\\n", " ").splitlines():
            yield from (Line(page, words, True) for words in commands_in(text.removeprefix("$ ")))
    prose = FENCE.sub("", page.read_text())
    for text in INLINE.findall(prose):
        yield from (Line(page, words, False) for words in commands_in(re.sub(r'.*"\$\((.*)\)"', r"\1", text)))


def commands_in(text: str) -> Iterator[list[str]]:
    """The commands of one line of a shell, split at pipes and the like; a line that is no shell's has none."""
    try:
        words = shlex.split(text.removeprefix("ExecStart="), comments=True)
    except ValueError:
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if word in SEPARATORS:
            if command:
                yield command
            command = []
        else:
            command.append(word)


LINES = [line for page in PAGES for line in lines_of(page)]
SIMCLR = [
    Line(line.page, line.words[1:], line.whole)
    for line in LINES
    if line.words[0].rpartition("/")[2] == "simclr" and len(line.words) > 1
]
MODULES = [line for line in LINES if line.words[0] in ("python", "torchrun") and "-m" in line.words[:-1]]
SCRIPTS = [line for line in LINES if re.match(r"scripts/\w", line.words[0])]


@pytest.mark.parametrize("line", [line for line in SIMCLR if line.whole], ids=str)
def test_a_shown_command_is_taken(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(line.words, capsys) is None


@pytest.mark.parametrize("line", [line for line in SIMCLR if not line.whole], ids=str)
def test_a_named_command_and_its_options_exist(line: Line) -> None:
    if line.words[0] in ("--help", "COMMAND", "..."):
        return
    known = set(options_of(parser_for(line.words), *line.words[1:2]))
    assert {word for word in line.words if word.startswith("-")} <= known


@pytest.mark.parametrize("line", MODULES, ids=str)
def test_a_shown_module_exists_and_knows_the_options(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    at = line.words.index("-m") + 1
    module, words = line.words[at], line.words[at + 1 :]
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None
    if module.startswith("benchmarks."):
        folders = (Path(spec.origin).parent, ROOT / "benchmarks" / "tools")
        text = "".join(path.read_text() for folder in folders for path in folder.glob("*.py"))
        assert [word for word in words if word.startswith("-") and f'"{word}"' not in text] == []
    else:
        (name,) = [row.name for row in ROWS if row.module in (module, f"{module}.command")]
        assert refusal([name, *words], capsys) is None


@pytest.mark.parametrize("line", SCRIPTS, ids=str)
def test_a_shown_script_exists_and_knows_the_options(line: Line) -> None:
    script = ROOT / line.words[0]
    assert script.is_file()
    code = script.with_suffix(".py")
    text = (code if code.is_file() else script).read_text()
    assert [word for word in line.words[1:] if word.startswith("-") and word not in text] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_command_and_option_is_documented(row: Row) -> None:
    sections = [section for page in DOCS for section in re.split(r"^(?=## )", page.read_text(), flags=re.MULTILINE)]
    text = "\n".join(section for section in sections if re.search(rf"simclr {row.name}\b", section))
    assert text, f"no page of docs/ names `simclr {row.name}`"
    missing = [
        names
        for action in actions_of(parser_for([row.name]))
        if (names := action.option_strings)
        and not any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) for name in names)
    ]
    assert missing == []
    inner = [name for group in sub_commands(parser_for([row.name])) for name in group.choices]
    assert [name for name in inner if not re.search(rf"simclr {row.name} (?:[^\n`]* )?{name}\b", text)] == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_and_field_is_in_the_api(name: str) -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    heading = re.search(rf"\[`{name}`\]\(#([\w-]+)\)", text)
    assert heading is not None, f"the table of operations does not name {name}"
    section = re.search(rf"^### {heading[1]}\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert section is not None, f"there is no section {heading[1]}"
    fields = OPERATIONS[name].request.__struct_fields__
    assert [field for field in fields if f"`{field}`" not in section[1]] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target, anchor in LINK.findall(page.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        file = page.parent / target if target else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(f"{target}#{anchor}")
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    rooms = "|".join((*ROOMS, "scripts", "tests", "benchmarks", "docs"))
    path = re.compile(rf"(?:{rooms})/[\w/.-]+\.(?:py|md|yaml|jinja|txt)")
    named = [text for text in INLINE.findall(FENCE.sub("", page.read_text())) if path.fullmatch(text)]
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shown_python_imports_what_there_is(page: Path) -> None:
    for body in blocks(page, "python"):
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_tree_names_every_file_of_the_rooms() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *ROOMS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    there = {name for name in listed.stdout.split() if (ROOT / name).is_file() and not name.endswith("__init__.py")}
    assert set(tree()) == there


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 200


def refusal(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str | None:
    """Why the parser does not take a command's words; None if it does."""
    parser = parser_for(words)
    try:
        parser.parse_args(words[1:])
    except SystemExit as ending:
        return capsys.readouterr().err if ending.code else None
    return None


def options_of(parser: argparse.ArgumentParser, *inner: str) -> Iterator[str]:
    """The options of a parser, and of those of its sub-commands that are named."""
    for action in parser._actions:
        yield from action.option_strings
    for group in sub_commands(parser):
        for name in set(inner) & set(group.choices):
            yield from options_of(group.choices[name])


def sub_commands(parser: argparse.ArgumentParser) -> Iterator["argparse._SubParsersAction[argparse.ArgumentParser]"]:
    """What holds the sub-commands of a parser that has any."""
    yield from (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def actions_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of its sub-commands, but for --help and those that are hidden."""
    for group in sub_commands(parser):
        for choice in group.choices.values():
            yield from actions_of(choice)
    shown = (action for action in parser._actions if action.option_strings and action.dest != "help")
    yield from (action for action in shown if action.help != argparse.SUPPRESS)


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tree() -> Iterator[str]:
    """The files that the tree in architecture.md names, as paths."""
    (body,) = [text for text in blocks(ROOT / "docs" / "architecture.md", "") if text.startswith("core/")]
    parents: list[str] = []
    for line in filter(str.strip, body.splitlines()):
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        parents = [*parents[:depth], name.rstrip("/")]
        if not name.endswith("/") and parents[0] in ROOMS:
            yield "/".join(parents)
