"""Whether the service is up, for whoever looks after it, and how it does: these need no key."""

import asyncio
from contextlib import suppress

from serving.gateway.call import Call
from serving.gateway.replies import Status
from serving.gateway.routes import Route
from serving.gateway.service import Service
from serving.protocol.messages import RequestError
from serving.protocol.wire import Reply, encode_error

_SECONDS = 2.0  # for a worker's answer


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


async def metrics(service: Service, call: Call) -> Reply:
    """What Prometheus reads; the collection's items are counted by a worker, if one answers soon."""
    items = None
    with suppress(TimeoutError, RequestError):
        async with asyncio.timeout(_SECONDS):
            items = ((await service.about()).get("collection") or {}).get("items")
    page, media_type = service.metrics.page(call.headers.get("accept", ""), items)
    return Reply(200, page, media_type)


_TEXT = {"responses": {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}}}
ROUTES = (
    Route("GET", "/healthz", alive, None, "Whether the gateway runs.", replies=(Status,)),
    Route("GET", "/readyz", ready, None, "Whether a worker answers.", replies=(Status,)),
    Route("GET", "/metrics", metrics, None, "Figures for Prometheus.", about=_TEXT),
    Route("GET", "/ping", ready, None, "What TorchServe calls /readyz.", listed=False),
)
