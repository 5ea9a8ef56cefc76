"""Traces by OpenTelemetry: each request, its frames, and what a worker did of them, sent to a collector as OTLP/HTTP.

This module is imported only where traces are wanted. A frame carries many requests, so each trace gets spans of its own
for the frames that had its request. Workers know nothing of OpenTelemetry: they say when they began and how long they
took, by the clock of the machine that all of it runs on.
"""

import os
import time

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.gateway.call import Call
from serving.gateway.dispatcher import Journey
from serving.gateway.lane import Waiting

_PATH = "/v1/traces"
_SECONDS = 5.0  # for the collector to take a batch; the gateway may wait so long when it ends
_W3C = TraceContextTextMapPropagator()


class Traces:
    """Writes spans to the collector at an address; those environment variables count that OpenTelemetry names."""

    def __init__(self, address: str) -> None:
        os.environ.setdefault("OTEL_SERVICE_NAME", "simclr")
        self._provider = TracerProvider(resource=Resource.create(), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=_address(address), timeout=_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("simclr")

    def begin(self, call: Call) -> str:
        """Begin the span of a request, and return it as `traceparent`; it goes on with its client's trace, if any."""
        attributes = {
            "http.request.method": call.method,
            "url.path": call.scope["path"],
            "simclr.request_id": call.id,
        }
        call.span = self._tracer.start_span(
            call.method, _W3C.extract(call.headers), SpanKind.SERVER, attributes, start_time=_unix(call.since)
        )
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(call.span, Context()))
        return carrier.get("traceparent", "")

    def replied(self, call: Call, status: int, size: int, seconds: float) -> None:
        """End the span of a request."""
        span = call.span
        if call.route:
            span.update_name(f"{call.method} {call.route}")
            span.set_attribute("http.route", call.route)
        span.set_attributes({"http.response.status_code": status, "http.response.body.size": size})
        if call.operation:
            span.set_attribute("simclr.operation", call.operation)
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(_unix(call.since + seconds))

    def carried(self, journey: Journey) -> None:
        """Write the spans of a frame, and of the worker that had it, for each of its requests that has a trace."""
        for one in journey.requests:
            if one.origin.traceparent:
                self._carried(one, journey)

    def close(self) -> None:
        """Send what is left; blocks for some seconds at most."""
        self._provider.shutdown()

    def _carried(self, one: Waiting, journey: Journey) -> None:
        parent = _W3C.extract({"traceparent": one.origin.traceparent})
        attributes = {
            "simclr.frame.requests": len(journey.requests),
            "simclr.frame.images": sum(other.images for other in journey.requests),
        }
        frame = self._tracer.start_span("frame", parent, SpanKind.CLIENT, attributes, start_time=_unix(journey.begun))
        if journey.error:
            frame.set_status(StatusCode.ERROR, journey.error)
        if (work := journey.work) is not None:
            begun = int(work.begun * 1e9)
            worker = self._tracer.start_span(
                "worker",
                set_span_in_context(frame, Context()),
                SpanKind.SERVER,
                {"process.pid": work.worker},
                start_time=begun,
            )
            worker.end(begun + int(work.seconds * 1e9))
        frame.end(_unix(journey.begun + journey.seconds))


def _address(base: str) -> str:
    return base if base.endswith(_PATH) else f"{base.rstrip('/')}{_PATH}"


def _unix(at: float) -> int:
    """A time of the monotonic clock in nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - at) * 1e9)
