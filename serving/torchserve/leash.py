"""The end of a process group: in order, or when the process that holds its leash dies, however it dies.

TorchServe must not outlive us. A process can catch signals, but not kill -9. So a small shell waits at a pipe whose
other end the kernel closes for us.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.1
_SCRIPT = 'read -r _; kill -9 "-$1" 2>/dev/null; rm -rf -- "$2"'


class Leash:
    """Until `let_go`, the death of this process ends the group and removes the folder."""

    def __init__(self, group: int, folder: Path) -> None:
        self._shell = subprocess.Popen(
            ["sh", "-c", _SCRIPT, "leash", str(group), str(folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # what a terminal sends to us does not reach it
        )

    def let_go(self) -> None:
        """From now on the death of this process has no consequences."""
        self._shell.kill()
        self._shell.wait()
        assert self._shell.stdin is not None
        self._shell.stdin.close()


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a whole process group, by force if need be; TorchServe's launcher ends before its Java does."""
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
