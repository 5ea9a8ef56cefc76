"""Load by wrk, a generator in C, so that it takes little of the cores that it measures: closed loops over loopback.

The requests lie in a file that a script of ours loads before wrk begins; they are sent in turn.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_READ = """\
local requests, at = {}, 0
local file = io.open("%s", "rb")
while true do
  local length = file:read("*n", 1)
  if not length then break end
  requests[#requests + 1] = file:read(length)
end
function request() at = at %% #requests + 1; return requests[at] end
"""
_SCRIPT = """\
done = function(summary, latency)
  local errors = summary.errors
  print(string.format('{"requests": %d, "seconds": %f, "refused": %d, "broken": %d, "p50_ms": %f, "p99_ms": %f}',
    summary.requests, summary.duration / 1e6, errors.status, errors.connect + errors.read + errors.write
    + errors.timeout, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True)
class Loaded:
    """What came of a load: good answers a second, their latencies in ms, and the CPU seconds of wrk itself."""

    per_second: float
    requests: int
    refused: int
    broken: int
    p50_ms: float
    p99_ms: float
    generator_cpu_seconds: float


def available() -> bool:
    """Whether wrk is installed."""
    return shutil.which("wrk") is not None


def load(
    port: int,
    requests: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    at: Callable[[str], None] = lambda moment: None,
) -> Loaded:
    """Send whole HTTP requests in turn from so many clients; `at` is told "begins" and "ends".

    Raises RuntimeError if wrk fails.
    """
    options = [f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", "60s"]
    found, cpu = run_script(_SCRIPT, port, requests, options=options, at=at)
    good = found["requests"] - found["refused"]
    return Loaded(
        per_second=good / found["seconds"],
        requests=good,
        refused=found["refused"],
        broken=found["broken"],
        p50_ms=found["p50_ms"],
        p99_ms=found["p99_ms"],
        generator_cpu_seconds=cpu,
    )


def run_script(
    script: str,
    port: int,
    requests: Sequence[bytes],
    *,
    options: Sequence[str],
    at: Callable[[str], None] = lambda moment: None,
) -> tuple[dict[str, Any], float]:
    """What a script's last line says as JSON, and the CPU seconds that wrk took.

    In the script `request` sends the requests in turn. Raises RuntimeError if wrk fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, whole = Path(folder, "requests"), Path(folder, "load.lua")
        file.write_bytes(b"".join(b"%d\n%b" % (len(one), one) for one in requests))
        whole.write_text(_READ % file + script)
        command = ["wrk", "-t1", *options, "-s", str(whole), f"http://127.0.0.1:{port}/"]
        at("begins")
        before = psutil.Process().cpu_times()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        after = psutil.Process().cpu_times()
        at("ends")
    if done.returncode != 0:
        raise RuntimeError(f"wrk failed with code {done.returncode}: {done.stderr[-500:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads(done.stdout.splitlines()[-1]), cpu
