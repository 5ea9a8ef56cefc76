"""Traces, as a collector gets them by OTLP/HTTP; and without them, nothing of OpenTelemetry."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.serving.gateway.test_access_log import line
from tests.serving.gateway.worker import DEADLY, gateway

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """The address of a server that takes what is exported, and what it took."""
    taken: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
            body = self.rfile.read(int(self.headers["content-length"]))
            taken.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        server.shutdown()
        server.server_close()


def spans_of(taken: list[ExportTraceServiceRequest]) -> list[Span]:
    scopes = [scope for one in taken for resource in one.resource_spans for scope in resource.scope_spans]
    return [span for scope in scopes for span in scope.spans]


def said(span: Span) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}


def test_a_request_its_frame_and_its_worker_are_spans_of_its_clients_trace(tmp_path: Path) -> None:
    with collector() as (address, taken), gateway(tmp_path, otlp=address, access_log=True) as served:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "first"}
        assert served.client.post("/v1/embed", content=b"\x89PNG", headers=headers).status_code == 200
        assert line(served, "first")["trace"] == TRACE
        unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        assert served.client.get("/v1/describe", headers=unsampled).status_code == 200
        assert served.client.get("/nothing").status_code == 404
        headers["x-request-id"] = "fatal"
        assert served.client.post("/v1/embed", content=DEADLY, headers=headers).status_code == 500
        assert f"(fatal 00-{TRACE}-" in served.said("a frame of 1 requests was lost")
    (name,) = {
        one.value.string_value for one in taken[0].resource_spans[0].resource.attributes if one.key == "service.name"
    }
    spans = spans_of(taken)  # all were sent before it ended
    first, lost = [span for span in spans if span.name == "POST /v1/embed"]
    (other,) = [span for span in spans if span.name == "GET"]
    assert name == "simclr"
    assert {span.trace_id.hex() for span in spans if span is not other} == {TRACE}
    assert other.trace_id.hex() != TRACE
    assert first.parent_span_id.hex() == PARENT
    assert said(first) | {"http.response.body.size": 0} == {
        "http.request.method": "POST",
        "http.route": "/v1/embed",
        "url.path": "/v1/embed",
        "http.response.status_code": 200,
        "http.response.body.size": 0,
        "simclr.operation": "embed",
        "simclr.request_id": "first",
    }
    (frame,) = [span for span in spans if span.parent_span_id == first.span_id]
    (worker,) = [span for span in spans if span.parent_span_id == frame.span_id]
    assert [(one.name, one.kind) for one in (first, frame, worker)] == [
        ("POST /v1/embed", Span.SPAN_KIND_SERVER),
        ("frame", Span.SPAN_KIND_CLIENT),
        ("worker", Span.SPAN_KIND_SERVER),
    ]
    assert said(frame) == {"simclr.frame.requests": 1, "simclr.frame.images": 1}
    times = [one.start_time_unix_nano for one in (first, frame, worker)]
    ends = [one.end_time_unix_nano for one in (worker, frame, first)]
    assert times == sorted(times)
    assert ends == sorted(ends)
    assert lost.status.code == Status.STATUS_CODE_ERROR
    assert [one.status.code for one in spans if one.parent_span_id == lost.span_id] == [Status.STATUS_CODE_ERROR] * 3


def test_a_collector_that_is_away_costs_no_request(tmp_path: Path) -> None:
    with gateway(tmp_path, otlp="http://127.0.0.1:9") as served:
        assert [served.client.get("/v1/describe").status_code for _ in range(20)] == [200] * 20
    assert served.process.poll() == 0


@pytest.mark.parametrize("module", ["serving.gateway.__main__", "serving.torchserve.command"])
def test_without_traces_nothing_of_opentelemetry_is_imported(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
