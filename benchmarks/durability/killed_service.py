"""`simclr serve` as a process of its own, and what it starts, for `benchmarks.durability.service_kills`."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil

from benchmarks.tools.child import ROOT, SIMCLR, ChildError
from serving.torchserve.settings import HOST

KINDS = ("gateway", "worker", "java")
_END_SECONDS = 30.0
_WAIT_SECONDS = 180.0
_POLL_SECONDS = 0.02


class KilledService:
    """The supervisor, and by kind those that it started. A context manager: stopped on exit, in order."""

    def __init__(self, archive: Path, collection: Path, log: Path, *, workers: int) -> None:
        self.workers = workers
        self.port = 0
        self._words = ["--archive", archive, "--collection", collection, "--workers", workers, "--log", log]
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> float:
        """Start it, at the port it had before; how many seconds it took. Raises `ChildError` if it ends."""
        begun = time.monotonic()
        words = [*SIMCLR, "serve", "--port", self.port, "--form", "onnx", *self._words]
        self._process = subprocess.Popen([*map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("ready: "):
            raise ChildError(f"simclr serve ended with code {self._process.wait()}; it says why above")
        self.port = int(line.split()[1].rpartition(":")[2])
        return time.monotonic() - begun

    def pids(self, kind: str) -> list[int]:
        """The living processes of a kind; raises `ChildError` if the supervisor has ended."""
        assert self._process is not None
        if (code := self._process.poll()) is not None:
            raise ChildError(f"simclr serve ended by itself with code {code}; it says why above")
        return [one.pid for one in self._started() if _kind_of(one) == kind]

    def wait_for(self, kind: str) -> list[int]:
        """The processes of a kind, as soon as there are as many as there should be."""
        count = self.workers if kind == "worker" else 1
        deadline = time.monotonic() + _WAIT_SECONDS
        while len(found := self.pids(kind)) != count:
            if time.monotonic() > deadline:
                raise ChildError(f"{len(found)} processes of the kind {kind} run, not {count}")
            time.sleep(_POLL_SECONDS)
        return found

    def kill(self, pid: int) -> float:
        """Kill one of them; the moment (`time.monotonic`) at which it was gone, which a busy machine puts off."""
        process = psutil.Process(pid)
        process.kill()
        while process.is_running() and _kind_of(process):
            time.sleep(_POLL_SECONDS / 10)
        return time.monotonic()

    def kill_supervisor(self) -> tuple[float, int]:
        """Kill the supervisor alone: seconds until all that it started had ended, and how many had not at last.

        The port must be free then; otherwise it counts as one more.
        """
        assert self._process is not None
        started = self._started()
        begun = time.monotonic()
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        _, alive = psutil.wait_procs(started, timeout=_END_SECONDS)
        seconds = time.monotonic() - begun
        for one in alive:
            one.kill()
        return seconds, len(alive) + (not self._port_is_free())

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def __enter__(self) -> "KilledService":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _started(self) -> list[psutil.Process]:
        assert self._process is not None
        return list(psutil.Process(self._process.pid).children(recursive=True))

    def _port_is_free(self) -> bool:
        with socket.socket() as handle:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            return handle.connect_ex((HOST, self.port)) != 0 and _can_listen(handle.family, self.port)


def _can_listen(family: socket.AddressFamily, port: int) -> bool:
    with socket.socket(family) as handle:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            handle.bind((HOST, port))
            handle.listen()
        except OSError:
            return False
    return True


def _kind_of(process: psutil.Process) -> str:
    try:
        words = " ".join(process.cmdline())
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
    except psutil.NoSuchProcess:
        return ""
    marks = {"model_service_worker": "worker", "org.pytorch.serve.ModelServer": "java", "serving.gateway": "gateway"}
    return next((kind for mark, kind in marks.items() if mark in words), "")
