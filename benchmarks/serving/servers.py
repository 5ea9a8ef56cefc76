"""The servers that are compared, each started as its own processes and stopped again; one at a time.

Ours is TorchServe by `serving.torchserve.launch`; LitServe and the plain torch server are this folder's commands.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serving.requests_of import LITSERVE, OURS, TORCH, Dialect
from benchmarks.serving.subjects import Subject
from benchmarks.tools.child import ROOT
from core.machine.ports import free_port
from serving.torchserve.launch import Server
from serving.torchserve.leash import end_group
from serving.torchserve.settings import HOST, LaunchError, Settings

_READY_SECONDS = 180.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Running:
    """A server that answers: where, in which dialect, and the processes that all of its processes descend from."""

    port: int
    pids: Sequence[int]
    dialect: Dialect


@contextmanager
def ours(subject: Subject, *, workers: int, cache_mb: int = 0) -> Iterator[Running]:
    """Our server on the subject's archive, with our settings as they are but for these."""
    with serving(subject.archive, workers=workers, form=subject.form, cache_mb=cache_mb) as running:
        yield running


@contextmanager
def serving(archive: Path, *, workers: int, form: str, **settings: Any) -> Iterator[Running]:
    """Our server on an archive."""
    with Server(Settings(archive, port=0, workers=workers, form=form, **settings)) as server:  # type: ignore[arg-type]
        yield Running(int(server.url.rpartition(":")[2]), server.pids, OURS)


@contextmanager
def litserve(subject: Subject, *, workers: int) -> Iterator[Running]:
    """LitServe with the same file, by `benchmarks.serving.litserve_server`."""
    with litserve_of(subject.file, subject.size, workers=workers) as running:
        yield running


@contextmanager
def litserve_of(file: Path, size: int, *, workers: int) -> Iterator[Running]:
    """LitServe with a file for images of `size` pixels."""
    command = ["--file", str(file.resolve()), "--size", str(size), "--workers", str(workers)]
    with _peer("benchmarks.serving.litserve_server", command, ready="/health") as (port, pid):
        yield Running(port, [pid], LITSERVE)


@contextmanager
def plain_torch(subject: Subject) -> Iterator[Running]:
    """The same encoder in torch, fp32, without batching, by `benchmarks.serving.torch_server`."""
    command = ["--release", str(subject.release.folder.resolve())]
    with _peer("benchmarks.serving.torch_server", command, ready="/.well-known/ready") as (port, pid):
        yield Running(port, [pid], TORCH)


@contextmanager
def _peer(module: str, arguments: Sequence[str], *, ready: str) -> Iterator[tuple[int, int]]:
    port = free_port(0)
    with tempfile.NamedTemporaryFile(prefix=f"{module}-", suffix=".log") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,  # so that all it starts can be stopped with it
        )
        try:
            _wait_until_ready(process, f"http://{HOST}:{port}{ready}", log=Path(log.name))
            yield port, process.pid
        finally:
            end_group(process)


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, *, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise LaunchError(f"{process.args!r} ended with code {process.returncode}{_last_words(log)}")
        try:
            if httpx.get(address, timeout=5.0, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(_POLL_SECONDS)
    raise LaunchError(f"{address} was not ready after {_READY_SECONDS:.0f} s{_last_words(log)}")


def _last_words(log: Path) -> str:
    return "; the end of its log:\n  " + "\n  ".join(log.read_text(errors="replace").splitlines()[-12:])
