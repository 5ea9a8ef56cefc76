"""Whether the service is up, for whoever looks after it: these need no key."""

import asyncio

from serving.gateway.call import Call
from serving.gateway.routes import Route
from serving.gateway.service import Service
from serving.protocol.messages import RequestError
from serving.protocol.wire import Reply, encode_error

_SECONDS = 2.0


async def alive(service: Service, call: Call) -> Reply:
    """The gateway runs."""
    return Reply(200, b'{"status":"alive"}')


async def ready(service: Service, call: Call) -> Reply:
    """A worker answers."""
    try:
        async with asyncio.timeout(_SECONDS):
            await service.about()
    except TimeoutError:
        return encode_error(RequestError(f"no worker answered within {_SECONDS:.0f} s", 503, retry_after=1))
    return Reply(200, b'{"status":"ready"}')


ROUTES = (
    Route("GET", "/healthz", alive, None, "Whether the gateway runs."),
    Route("GET", "/readyz", ready, None, "Whether a worker answers."),
    Route("GET", "/ping", ready, None, "What TorchServe calls /readyz.", listed=False),
)
