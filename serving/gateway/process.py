"""The gateway's process, as whoever starts the service sees it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

from core.machine.parent import end_with_parent
from serving.gateway.options import GatewayOptions

_CODE = Path(__file__).parents[2]
_STOP_SECONDS = 25.0  # some more than the gateway gives what is under way


class GatewayProcess:
    """A gateway at a listening socket, which stays open if the gateway dies: the next one answers what waits there."""

    def __init__(self, options: GatewayOptions, listening: socket.socket, folder: Path) -> None:
        self._options = folder / "gateway.json"
        options.save(self._options)
        self._listening = listening
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> IO[bytes]:
        """Start it, and return what it says. If the main thread starts it, it ends with our process."""
        handle = self._listening.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serving.gateway", str(self._options), str(handle)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(_CODE)},
            pass_fds=(handle,),
            start_new_session=True,  # Ctrl-C reaches us alone
            preexec_fn=end_with_parent(),  # noqa: PLW1509  (one call of libc; it means this thread)
        )
        assert self._process.stdout is not None
        return self._process.stdout

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def stop(self) -> None:
        """Take no new connections, let what is under way be answered, and end."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
