"""TorchServe's addresses, at which everything was asked before there was a gateway, and still can be."""

from serving.gateway.call import Call
from serving.gateway.routes import Route
from serving.gateway.service import Service
from serving.protocol.agreed import MODEL
from serving.protocol.messages import RequestError
from serving.protocol.wire import Reply, encode, parse


async def invoke(service: Service, call: Call) -> Reply:
    """Whatever operation the query, the form or the JSON names; embed where none does."""
    if (name := call.params["model"]) != MODEL:
        raise RequestError(f"there is no model {name!r}; it is {MODEL!r}", 404)
    posted = call.method == "POST"
    request, media_type = parse(call.query, await call.parts(), headers=call.headers, posted=posted)
    return encode(await service.ask(call, request), media_type)


ROUTES = tuple(
    Route(method, path, invoke, "read", listed=False)
    for method in ("GET", "POST", "PUT")
    for path in ("/models/{model}/invoke", "/predictions/{model}")
)
