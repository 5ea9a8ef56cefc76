"""How commands are parsed and how they end, in real processes where it is about signals and pipes."""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.command_line.command import Command, main
from core.command_line.endings import FAULT, conclude, counted, first_few
from core.machine.interrupts import Interrupted

HEAD = """
import sys, time
from core.command_line.command import Command, main
"""
WAITS = """
def run(given):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("closed", flush=True)
sys.exit(main(Command("wait", "Wait.", lambda parser: None, run, resume="the same command goes on"), []))
"""
PRINTS = """
def run(given):
    for number in range(1_000_000):
        print(number)
    return 0
sys.exit(main(Command("print", "Print.", lambda parser: None, run), []))
"""


def failing(error: BaseException, **more: object) -> Command:
    def run(given: argparse.Namespace) -> int:
        raise error

    return Command("fail", "Fail.", lambda parser: None, run, **more)  # type: ignore[arg-type]


class OwnError(RuntimeError):
    pass


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ValueError("k is 0"), 1, "error: k is 0\n"),
        (FileNotFoundError(2, "No such file", "x"), 1, "error: [Errno 2] No such file: 'x'\n"),
        (OwnError("the store is locked"), 1, "error: the store is locked\n"),
        (Interrupted(signal.SIGTERM), 143, "stopped by SIGTERM: type it again\n"),
        (KeyboardInterrupt(), 130, "stopped: type it again\n"),
        (SystemExit("error: no data"), 1, "error: no data\n"),
    ],
)
def test_an_exception_is_a_sentence_and_a_code(
    error: BaseException, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(failing(error, errors=(OwnError,), resume="type it again"), []) == code
    assert capsys.readouterr().err == sentence


def test_a_fault_of_ours_says_so_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(failing(KeyError("x")), []) == FAULT
    said = capsys.readouterr().err
    assert said.startswith("error: unexpected KeyError: 'x'")
    assert "SIMCLR_TRACEBACK=1" in said
    assert "Traceback" not in said


def test_a_fault_of_ours_can_be_seen_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMCLR_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(failing(KeyError("x")), [])


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_closes_what_is_open(sign: signal.Signals) -> None:
    command = [sys.executable, "-c", HEAD + WAITS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(sign)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (128 + sign, "closed\n", "stopped: the same command goes on\n")


def test_a_closed_pipe_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HEAD + PRINTS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == ""


def test_wrong_usage_ends_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(failing(ValueError()), ["--unknown"])
    assert ended.value.code == 2
    assert "usage: simclr fail" in capsys.readouterr().err


def test_words_of_the_end(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    conclude("2 images are stored", then="simclr search", stored=2)
    conclude("2 images are stored", then="simclr search", as_json=True, stored=2, out=tmp_path)
    out = capsys.readouterr().out
    assert out == f'2 images are stored\nnext: simclr search\n{{"stored": 2, "out": "{tmp_path}"}}\n'
    assert [*first_few("abcd", 2)] == ["a", "b", "(and 2 more)"]
    assert [*first_few("ab", 2, rest="log.txt")] == ["a", "b"]
    assert [*first_few("abc", 2, rest="log.txt")][-1] == "(and 1 more: log.txt)"
    assert (counted(1, "image"), counted(1200, "image"), counted(2, "box", "boxes")) == (
        "1 image",
        "1,200 images",
        "2 boxes",
    )
