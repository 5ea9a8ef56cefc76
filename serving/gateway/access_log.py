"""The access log: every request as one line of JSON; neither its query nor its key is in it."""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson

from serving.gateway.call import Call

_PATH = 1000  # characters; with it a line is so short that no other can get into it (PIPE_BUF)
_ADDRESS = 45  # characters of the longest
_STDERR = 2


class AccessLog:
    """Writes to a file that is open for writing, by default standard error, which the server's log takes.

    With `behind_proxy` the client is whom the proxy says that it has the request from.
    """

    def __init__(self, file: int = _STDERR, *, behind_proxy: bool = False) -> None:
        self._file = file
        self._behind_proxy = behind_proxy

    def replied(self, call: Call, status: int, size: int, seconds: float) -> None:
        """Write the line of a request that was answered with a body of `size` bytes."""
        line = {**line_of(call, status, size, seconds), "client": self._client(call)}
        with suppress(OSError):  # nobody takes it any more
            os.write(self._file, orjson.dumps(line) + b"\n")

    def _client(self, call: Call) -> str | None:
        forwarded = call.headers.get("x-forwarded-for", "") if self._behind_proxy else ""
        if forwarded:
            return forwarded.rpartition(",")[2].strip()[:_ADDRESS]  # those before it, anyone may have written
        connected = call.scope.get("client")
        return connected[0] if connected else None


def line_of(call: Call, status: int, size: int, seconds: float) -> Mapping[str, Any]:
    """What is said of a request, but for its client."""
    return {
        "time": _written(time.time()),
        "id": call.id,
        "trace": call.traceparent[3:35] or None,
        "method": call.method,
        "path": call.scope["path"][:_PATH],
        "route": call.route or None,
        "operation": call.operation or None,
        "status": status,
        "bytes_in": call.came,
        "bytes_out": size,
        "ms": round(seconds * 1000, 2),
        "key": call.caller.name or None,
    }


def _written(seconds: float) -> str:
    """RFC 3339, in UTC."""
    whole, rest = divmod(seconds, 1)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int(rest * 1000):03d}Z"
