"""Whether worker processes can hand over what they read: torch passes tensors in /dev/shm, by sockets below TMPDIR.

A batch that finds no room there is lost in a thread of the worker's, and the run would wait for it for ever.
"""

import os
import tempfile
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
_LONGEST_FOLDER = 107 - len("/pymp-12345678/listener-12345678")  # of a Unix socket's path, which has 107 bytes


def check_workers_room(batches: int, size: int) -> None:
    """Raise OSError unless this many batches of `size` bytes fit in shared memory, and its sockets can be made."""
    needed = (batches + 1) * size  # one more is in use
    about = os.statvfs(SHARED_MEMORY)
    free = about.f_bavail * about.f_frsize
    if free < needed:
        raise OSError(
            f"--workers needs {needed:,} bytes of shared memory, and {SHARED_MEMORY} has {free:,} free: enlarge it "
            "(docker run --shm-size, or a Kubernetes volume with medium: Memory), or take fewer --workers; 0 needs none"
        )
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        raise OSError(
            f"TMPDIR is {folder}, {len(os.fsencode(folder))} bytes long; --workers makes sockets in it, whose paths "
            f"are limited: take one of at most {_LONGEST_FOLDER} bytes, or --workers 0"
        )
