"""Completion: the scripts, and what a shell is answered for a line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import ROWS, main

ROOT = Path(__file__).parents[2]


def completed(line: str, folder: Path) -> list[str]:
    """What the shell gets for a line with the cursor at its end."""
    answer = folder / "answer"
    asked = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9", "_ARGCOMPLETE_COMP_WORDBREAKS": " "}
    shell = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_SHELL": "bash", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
    environment = {**os.environ, **asked, **shell, "PYTHONPATH": str(ROOT), "IFS": "\013"}
    subprocess.run([sys.executable, "-m", "cli"], cwd=folder, env=environment, check=True, capture_output=True)
    return [word.strip() for word in answer.read_text().split("\013") if word.strip()]


def test_commands(tmp_path: Path) -> None:
    assert set(completed("simclr ", tmp_path)) == {"--help", "-h", "--version", *(row.name for row in ROWS)}
    assert completed("simclr ser", tmp_path) == ["serve"]


def test_options_choices_and_file_names(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").touch()
    assert completed("simclr search --gr", tmp_path) == ["--group-by"]
    assert set(completed("simclr completion ", tmp_path)) >= {"bash", "zsh", "fish"}
    assert completed("simclr search ca", tmp_path) == ["cat.jpg"]
    assert completed("simclr serach --gr", tmp_path) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "simclr" in capsys.readouterr().out


def test_bash_takes_its_script(tmp_path: Path) -> None:
    printed = subprocess.run([sys.executable, "-m", "cli", "completion", "bash"], cwd=ROOT, stdout=-1, check=True)
    (tmp_path / "script").write_bytes(printed.stdout)
    asked = subprocess.run(["bash", "-c", f". {tmp_path}/script && complete -p simclr"], stdout=-1, check=True)
    assert b"-F _python_argcomplete simclr" in asked.stdout
