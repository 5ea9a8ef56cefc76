"""TorchServe as the gateway sees it: frames go to a Unix socket, and answers come back.

A lost frame is told apart by whether a worker may have begun it: one that reached nobody may be sent again whatever is
in it.
"""

from collections.abc import Sequence
from pathlib import Path

import aiohttp

from serving.protocol.agreed import MODEL
from serving.protocol.frames import FRAME, Answered, pack_requests, unpack_answers
from serving.protocol.messages import RequestError
from serving.protocol.operations import Request

_SECONDS = 125.0  # TorchServe itself ends a worker that has not answered for two minutes
_ADDRESS = f"http://torchserve/predictions/{MODEL}"


class NotSent(ConnectionError):
    """The frame reached no worker: TorchServe is not there, or its queue is full."""


class Lost(ConnectionError):
    """The frame reached TorchServe and was not answered: its worker died, perhaps in the middle of it."""


class Upstream:
    """Connections to TorchServe's inference socket; one request at a time on each."""

    def __init__(self, socket: Path) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(socket), limit=0, keepalive_timeout=30.0),
            timeout=aiohttp.ClientTimeout(total=_SECONDS),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def send(self, requests: Sequence[Request], origins: Sequence[str] = ()) -> Answered:
        """The answers to a frame of requests, which `origins` name. Raises `NotSent` or `Lost`."""
        status, body = await self._post(pack_requests(requests, origins))
        if status == 200:
            return unpack_answers(body)
        text = body[:300].decode(errors="replace")
        if status == 413:
            return Answered([RequestError("the request is too large for the server", 413) for _ in requests])
        if status == 503 and "Worker died" not in text:  # a full queue, or no worker yet
            raise NotSent(f"TorchServe answered 503: {text}")
        raise Lost(f"TorchServe answered {status}: {text}")

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _post(self, frame: bytes) -> tuple[int, bytes]:
        try:
            async with self._session.post(_ADDRESS, data=frame, headers={"content-type": FRAME}) as reply:
                return reply.status, await reply.read()
        except aiohttp.ClientConnectorError as error:
            raise NotSent(f"TorchServe can't be reached: {error}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Lost(f"TorchServe had no answer: {type(error).__name__} {error}") from error
