"""A disk that is really full (a file system of a few bytes in memory), and folders that can really only be read."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_NOBODY = 65534


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mounts a file system of so many bytes at `folder`; skips the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root; the tests with a limit on a file's size stand in for it")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


@contextmanager
def read_only_mount(folder: Path, at: Path) -> Iterator[Path]:
    """Mounts `folder` at `at` for reading alone; skips the test where that is not allowed."""
    at.mkdir(exist_ok=True)
    commands = [["mount", "--bind", str(folder), str(at)], ["mount", "-o", "remount,ro,bind", str(at)]]
    if shutil.which("mount") is None or any(
        subprocess.run(c, capture_output=True, check=False).returncode for c in commands
    ):
        pytest.skip("mounting needs root; the test without the permission to write stands in for it")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], capture_output=True, check=False)


@contextmanager
def no_permission(folder: Path) -> Iterator[Path]:
    """Takes the permission to write below `folder` from this process, which becomes another user if it is root."""
    everything = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in everything}
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    user = os.geteuid()
    if user == 0:
        os.seteuid(_NOBODY)
    try:
        yield folder
    finally:
        os.seteuid(user)
        for path, mode in modes.items():
            path.chmod(mode)
