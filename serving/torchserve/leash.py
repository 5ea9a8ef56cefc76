"""Ends a process group when the process that holds the leash dies, however it dies: TorchServe must not outlive us.

Signals can be caught, but kill -9 can't. So a small shell waits at a pipe whose other end the kernel closes for us.
"""

import subprocess
from pathlib import Path

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
