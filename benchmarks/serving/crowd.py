"""Arrivals at a rate, by wrk with very many connections that pause at random between their requests.

An open loop of thousands of arrivals a second in Python would take a core, and a closed loop of wrk would ask again at
once whenever it was refused. So each of many connections pauses after every reply: those that are refused come back at
the rate, and there are so many that those that wait in line are not missed. wrk tells its own CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.serving.wrk import run_script

_SCRIPT = """\
local pause, threads = %d, {}
counted, silent = "", 0
local by_status = {}
function setup(thread) threads[#threads + 1] = thread end
function delay() return math.random(0, 2 * pause) end
function response(status, headers)
  by_status[status] = (by_status[status] or 0) + 1
  if status == 503 and not (headers["retry-after"] or headers["Retry-After"]) then silent = silent + 1 end
  if math.random(50) == 1 then write_down() end
end
function write_down()
  local parts = {}
  for status, count in pairs(by_status) do parts[#parts + 1] = string.format('"%%d": %%d', status, count) end
  counted = table.concat(parts, ", ")
end
function done(summary)
  local errors = summary.errors
  print(string.format('{"statuses": {%%s}, "silent": %%d, "seconds": %%f, "requests": %%d, "broken": %%d}',
    threads[1]:get("counted"), threads[1]:get("silent"), summary.duration / 1e6, summary.requests,
    errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True)
class Crowd:
    """Whole requests, sent in turn at `rate` a second by so many connections, of which about `waiting` are in line."""

    port: int
    requests: Sequence[bytes]
    rate: float
    connections: int
    waiting: int


@dataclass(frozen=True)
class Met:
    """What became of a crowd: replies by status, those of 503 without Retry-After, and connections that broke."""

    statuses: dict[str, int]
    without_retry_after: int
    broken: int
    seconds: float
    generator_cpu_seconds: float

    @property
    def good_per_second(self) -> float:
        """How many were answered with 200, a second."""
        return self.statuses.get("200", 0) / self.seconds

    @property
    def per_second(self) -> float:
        """How many were answered at all, a second."""
        return sum(self.statuses.values()) / self.seconds


def meet(crowd: Crowd, *, seconds: float) -> Met:
    """Send a crowd for so long. Raises RuntimeError if wrk fails.

    The counts may miss the last fifty replies or so: wrk's script is not told when the end is near.
    """
    pause = 1000 * max(crowd.connections - crowd.waiting, crowd.connections / 2) / crowd.rate
    options = [f"-c{crowd.connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    found, cpu = run_script(_SCRIPT % round(pause), crowd.port, crowd.requests, options=options)
    return Met(found["statuses"], found["silent"], found["broken"], found["seconds"], cpu)
