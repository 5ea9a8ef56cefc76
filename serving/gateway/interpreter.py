"""The dialects' routes in the gateway's table: each request is translated, asked of a worker, and translated back."""

import asyncio
from dataclasses import dataclass

from serving.gateway.call import Call
from serving.gateway.dialects import inference_protocol, openai, weaviate
from serving.gateway.dialects.model import ServedModel
from serving.gateway.dialects.route import DialectRoute, HttpRequest
from serving.gateway.routes import Route
from serving.gateway.service import Service
from serving.protocol.messages import RequestError
from serving.protocol.wire import Reply

_HEALTH_SECONDS = 0.4  # Weaviate waits half a second for an answer

DIALECTS = (*openai.ROUTES, *inference_protocol.ROUTES, *weaviate.ROUTES)


@dataclass(frozen=True)
class Interpreter:
    """Answers one route of a dialect."""

    route: DialectRoute

    async def __call__(self, service: Service, call: Call) -> Reply:
        """Read the request, have it answered if it needs a worker, and write the reply."""
        model = await self._model(service)
        request = HttpRequest(await call.body(), call.params, call.headers)
        found = self.route.begin(request, model)
        if isinstance(found, Reply):
            return found
        return self.route.finish(found, await service.ask(call, found.request))

    async def _model(self, service: Service) -> ServedModel | None:
        """What is served; None if it is not needed, or if no worker says it (within reason, to a question for it)."""
        if not self.route.needs_model:
            return None
        try:
            async with asyncio.timeout(_HEALTH_SECONDS if self.route.open else None):
                return ServedModel.of_description(await service.about())
        except (RequestError, TimeoutError):
            return None


ROUTES = tuple(
    Route(
        *(one.method, one.path, Interpreter(one), None if one.open else "read", one.summary),
        refuse=one.refuse,
    )
    for one in DIALECTS
)
