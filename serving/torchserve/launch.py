"""Start the whole service, wait until it really answers, keep it running, and stop it again.

    with Server(Settings(archive=Path("model_store/digits-1.mar"), port=0)) as server:
        Client(server.url).describe()

The gateway is the only process that listens at a port; TorchServe stands behind it at Unix sockets, in a folder that
only our user can enter. Whichever of them dies is started again by `wait`.
"""

import errno
import logging
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import httpx

from serving.gateway.access.gate import check_access
from serving.gateway.collector import check_traces
from serving.gateway.process import GatewayProcess
from serving.protocol.agreed import MODEL
from serving.torchserve.log_file import LogFile
from serving.torchserve.management import Management
from serving.torchserve.process import Place, TorchServe
from serving.torchserve.restarts import Restarts
from serving.torchserve.rollover.following import Follower
from serving.torchserve.service_manager import Watchdog
from serving.torchserve.settings import INFERENCE_SOCKET, LaunchError, Settings
from serving.torchserve.source import own_folder

_READY_SECONDS = 30.0  # of the gateway, once TorchServe is ready
_PORT_SECONDS = 2.0  # for the processes of a killed server to let go of it
_POLL_SECONDS = 0.1
_LOG = logging.getLogger(__name__)


class Server:
    """The gateway, and TorchServe behind it. A context manager: ready on entry, stopped on exit."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.model = MODEL
        self.log = Path()
        self.torchserve: TorchServe | None = None
        self.gateway: GatewayProcess | None = None
        self._listening: socket.socket | None = None
        self._port = settings.port
        self._folder = Path()
        self._log_file: LogFile | None = None

    @property
    def url(self) -> str:
        """The address that answers requests."""
        access = self.settings.access
        host = f"[{access.host}]" if ":" in access.host else access.host
        return f"{'https' if access.tls else 'http'}://{host}:{self._port}"

    @property
    def pid(self) -> int:
        """The process id of TorchServe's Java, whose descendants its workers are."""
        assert self.torchserve is not None
        return self.torchserve.pid

    @property
    def pids(self) -> list[int]:
        """The processes from which all descend that answer requests: Java and the gateway."""
        assert self.gateway is not None
        return [self.pid, self.gateway.pid]

    @property
    def management(self) -> Management | None:
        """TorchServe's management API."""
        return self.torchserve.management if self.torchserve is not None else None

    @property
    def follower(self) -> Follower | None:
        """What follows the store, if one is served."""
        return self.torchserve.follower if self.torchserve is not None else None

    def start(self) -> None:
        """Start everything and wait until it answers; raises `LaunchError`, and leaves nothing but the log.

        Raises ValueError before, if the gateway must not listen like that (`serving.gateway.access`) or can't
        write traces.
        """
        check_access(self.settings.access)
        check_traces(self.settings.otlp)
        self._listening = self._listen()
        self._port = self._listening.getsockname()[1]
        self._folder = own_folder()
        self._log_file = LogFile(self.settings.log)
        self.log = self._log_file.path
        try:
            self._start_torchserve()
            self.gateway = GatewayProcess(
                self.settings.gateway_options(self._folder / INFERENCE_SOCKET), self._listening, self._folder
            )
            self._start_gateway()
            self._wait_until_ready()
        except BaseException as error:
            self.stop(keep_log=not isinstance(error, KeyboardInterrupt | SystemExit))
            raise

    def wait(self) -> NoReturn:
        """Keep the service running: what dies is started again; raises `LaunchError` where that does not help."""
        assert self.torchserve is not None
        assert self.gateway is not None
        restarts, watchdog = Restarts(), Watchdog()

        def look_after_gateway() -> None:
            watchdog.tell(lambda: self._answers("/healthz"))
            self._keep_gateway(restarts)

        while True:
            time.sleep(_POLL_SECONDS)
            look_after_gateway()
            if (code := self.torchserve.poll()) is not None:
                restarts.note("TorchServe", self.torchserve.why_it_ended(code))
                self._start_torchserve_again(restarts, meanwhile=look_after_gateway)

    def drain(self) -> None:
        """Take no new connections, and wait until everything that was asked is answered, for some seconds at most."""
        if self.torchserve is not None:
            self.torchserve.cancel_following()
        if self._listening is not None:
            self._listening.close()
        if self.gateway is not None:
            self.gateway.stop()

    def stop(self, *, keep_log: bool = False) -> None:
        """Stop all processes; harmless if none runs.

        A log that nobody asked for goes as well, except with `keep_log`.
        """
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        if self.torchserve is not None:
            self.torchserve.cancel_following()
        if self.gateway is not None:
            self.gateway.kill()
            self.gateway = None
        if self.torchserve is not None:
            self.torchserve.stop()
            self.torchserve = None
        if self._log_file is not None:
            self._log_file.close(keep=keep_log or self.settings.log is not None)
            self._log_file = None
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(keep_log=kind is not None and not issubclass(kind, KeyboardInterrupt | SystemExit))

    def _listen(self) -> socket.socket:
        """A socket at the port, which stays open whatever dies behind it."""
        deadline = time.monotonic() + _PORT_SECONDS
        while True:
            handle = socket.socket(socket.AF_INET6 if ":" in self.settings.host else socket.AF_INET)
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                handle.bind((self.settings.host, self.settings.port))
                handle.listen(1024)
                return handle
            except OSError as error:
                handle.close()
                if time.monotonic() > deadline:
                    raise LaunchError(_no_port(self.settings, error)) from error
            time.sleep(_POLL_SECONDS)

    def _start_torchserve(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        assert self._log_file is not None
        self.torchserve = TorchServe(self.settings, Place(self._folder, self.url, self._log_file))
        self.torchserve.start(meanwhile)

    def _start_torchserve_again(self, restarts: Restarts, *, meanwhile: Callable[[], None]) -> None:
        while True:
            assert self.torchserve is not None
            self.torchserve.stop()
            try:
                self._start_torchserve(meanwhile)
                restarts.ready("TorchServe")
                return
            except LaunchError as error:
                restarts.note("TorchServe", str(error))

    def _keep_gateway(self, restarts: Restarts) -> None:
        assert self.gateway is not None
        if (code := self.gateway.poll()) is not None:
            restarts.note("the gateway", f"the gateway ended with code {code}{self._last_words()}")
            self._start_gateway()
            restarts.ready("the gateway")

    def _start_gateway(self) -> None:
        assert self.gateway is not None
        assert self._log_file is not None
        self._log_file.copy(self.gateway.start())

    def _wait_until_ready(self) -> None:
        assert self.gateway is not None
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if (code := self.gateway.poll()) is not None:
                raise LaunchError(f"the gateway ended with code {code}{self._last_words()}")
            if self._answers("/readyz"):
                return
            time.sleep(_POLL_SECONDS)
        raise LaunchError(f"the gateway was not ready after {_READY_SECONDS:.0f} s{self._last_words()}")

    def _answers(self, path: str) -> bool:
        try:
            return httpx.get(f"{self.url}{path}", timeout=5.0, trust_env=False, verify=False).status_code == 200
        except httpx.TransportError:
            return False

    def _last_words(self) -> str:
        assert self._log_file is not None
        return self._log_file.last_words()


def _no_port(settings: Settings, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {settings.port} is in use: stop what runs there, or choose another (--port)"
    return (
        f"nothing can listen at {settings.host} port {settings.port} ({error.strerror}): choose others (--host, --port)"
    )
