"""The gateway's process: `python -m serving.gateway OPTIONS_FILE LISTENING_SOCKET`, as `simclr serve` starts it."""

import asyncio
import logging
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from serving.gateway.access.certificate import Certificate
from serving.gateway.access.cors import with_cors
from serving.gateway.access.gate import Gate
from serving.gateway.access_log import AccessLog
from serving.gateway.addresses import ROUTES
from serving.gateway.app import Gateway
from serving.gateway.connection import Connection
from serving.gateway.dispatcher import Dispatcher, Limits
from serving.gateway.options import GatewayOptions
from serving.gateway.service import Observers
from serving.gateway.upstream import Upstream

if TYPE_CHECKING:
    from serving.gateway.traces import Traces

_CONNECTIONS = 4000
_DRAIN_SECONDS = 20


async def serve(options: GatewayOptions, listening: socket.socket) -> None:
    """Answer at the socket until SIGTERM, then what was asked before it."""
    upstream = Upstream(Path(options.socket))
    limits = Limits(slots=options.workers, requests=options.batch_size, patience=options.max_wait)
    dispatcher = Dispatcher(upstream.send, limits)
    traces = _traces(options.otlp, dispatcher) if options.otlp else None
    logs = [AccessLog(behind_proxy=options.access.behind_proxy)] if options.access_log else []
    observers = Observers([*logs, traces], traces.begin) if traces is not None else Observers(logs)
    access = options.access
    gateway = Gateway(dispatcher, ROUTES, gate=Gate(access), observers=observers)
    certificate = Certificate(access.tls_cert, access.tls_key) if access.tls else None
    config = uvicorn.Config(
        with_cors(gateway, access.allowed_origins),
        ssl_context_factory=(lambda *_: certificate.context) if certificate is not None else None,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    renewal = asyncio.create_task(certificate.keep_fresh()) if certificate is not None else None
    await gateway.start()
    try:
        await uvicorn.Server(config).serve(sockets=[listening])
    finally:
        if renewal is not None:
            renewal.cancel()
        await gateway.close()
        await upstream.close()
        if traces is not None:
            traces.close()


def _traces(address: str, dispatcher: Dispatcher) -> "Traces":
    """They come with OpenTelemetry, which a service without them neither needs nor loads."""
    from serving.gateway.traces import Traces

    traces = Traces(address)
    dispatcher.carried.append(traces.carried)
    return traces


def main() -> None:
    """Run the gateway."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn raises it again once it has stopped: close all then
    options = GatewayOptions.load(Path(sys.argv[1]))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(serve(options, socket.socket(fileno=int(sys.argv[2]))))


if __name__ == "__main__":
    main()
