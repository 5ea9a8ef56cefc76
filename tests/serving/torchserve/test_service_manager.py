"""What systemd hears, at real datagram sockets; that `simclr serve` tells it is in test_launching.py."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.torchserve.service_manager import READY, Watchdog, notify


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket at which systemd listens."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@simclr-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as handle:
        handle.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        handle.settimeout(0)
        yield handle


def heard(systemd: socket.socket) -> bytes:
    try:
        return systemd.recv(100)
    except BlockingIOError:
        return b""


def test_a_state_is_told(systemd: socket.socket) -> None:
    notify(READY)
    assert heard(systemd) == b"READY=1"


def test_nobody_is_told_where_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify(READY)
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify(READY)


def test_a_watchdog_hears_of_us_while_we_are_well(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    Watchdog().tell(lambda: True)
    assert heard(systemd) == b"WATCHDOG=1"
    Watchdog().tell(lambda: False)
    assert heard(systemd) == b""


@pytest.mark.parametrize("given", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}], ids=str)
def test_who_wants_no_watchdog_hears_nothing(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    Watchdog().tell(lambda: True)
    assert heard(systemd) == b""


def test_it_is_not_asked_more_often_than_needed(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", str(60_000_000))
    watchdog, answers = Watchdog(), iter([True])
    for _ in range(5):
        watchdog.tell(lambda: next(answers))
    assert heard(systemd) == b"WATCHDOG=1"
