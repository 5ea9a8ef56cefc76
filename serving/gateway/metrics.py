"""What the gateway counts and measures, as Prometheus reads it at `/metrics`.

Every request passes here, so a series is looked up once and then kept. What can be read when somebody looks (who waits,
what is held) costs requests nothing.
"""

from collections.abc import Callable, Sequence

from prometheus_client import GC_COLLECTOR, CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from serving.gateway.bodies import Bodies
from serving.gateway.call import Call
from serving.gateway.dispatcher import Dispatcher, Journey

CLIENT_GONE = 499  # in place of a status, where the client went away before its reply

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)

Observe = Callable[[float], None]


class Metrics:
    """The figures of one gateway."""

    def __init__(self, dispatcher: Dispatcher, bodies: Bodies) -> None:
        self.registry = CollectorRegistry()
        self._durations: dict[tuple[str, str, int], Observe] = {}
        self._duration = Histogram(
            "simclr_request_duration_seconds",
            "From a request's head to its reply, by operation, route and status.",
            ("operation", "route", "status"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._waited = self._histogram("request_wait_seconds", "How long requests waited for a worker.", _SECONDS)
        self._frame_seconds = self._histogram("frame_duration_seconds", "From a frame to its answers.", _SECONDS)
        self._frame_requests = self._histogram("frame_requests", "Requests in a frame.", _COUNTS)
        self._frame_images = self._histogram("frame_images", "Images in a frame that has any.", _COUNTS)
        self._items: float | None = None
        dispatcher.carried.append(self.carried)
        lost = "Frames whose worker died or gave no answer."
        self._lost = Counter("simclr_frames_lost", lost, registry=self.registry).inc
        self._gauges(dispatcher, bodies)
        ProcessCollector(registry=self.registry)
        self.registry.register(GC_COLLECTOR)

    def replied(self, call: Call, status: int, size: int, seconds: float) -> None:
        """A request was answered, so many seconds after its head had come."""
        key = (call.operation, call.route, status)
        observe = self._durations.get(key)
        if observe is None:
            observe = self._durations[key] = self._duration.labels(*key).observe
        observe(seconds)

    def carried(self, journey: Journey) -> None:
        """A frame was answered, or lost."""
        if journey.error:
            self._lost()
            return
        frame, begun = journey.requests, journey.begun
        self._frame_seconds(journey.seconds)
        self._frame_requests(len(frame))
        if images := sum(one.images for one in frame):
            self._frame_images(images)
        for one in frame:
            self._waited(begun - one.since)

    def page(self, accept: str, items: float | None) -> tuple[bytes, str]:
        """All figures and their media type; `items` are in the collection, None if nobody knows."""
        self._items = items
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Observe:
        return Histogram(f"simclr_{name}", text, buckets=buckets, registry=self.registry).observe

    def _gauges(self, dispatcher: Dispatcher, bodies: Bodies) -> None:
        waiting = self._gauge("requests_waiting", "Requests in line, with images (slow) or without (quick).", "lane")
        waiting.labels("quick").set_function(lambda: dispatcher.quick.requests)
        waiting.labels("slow").set_function(lambda: dispatcher.slow.requests)
        self._gauge("images_waiting", "Images in line.").set_function(lambda: dispatcher.slow.images)
        self._gauge("frames_under_way", "Frames that workers have.").set_function(lambda: dispatcher.under_way)
        self._gauge("workers", "Frames that workers take at once.").set_function(lambda: dispatcher.limits.slots)
        held = self._gauge("body_bytes_held", "Memory of requests' bodies, up to 1 MiB (small) or more.", "size")
        held.labels("small").set_function(lambda: bodies.small.size - bodies.small.free)
        held.labels("large").set_function(lambda: bodies.large.size - bodies.large.free)
        items = self._gauge("items", "Items of the collection; NaN without one, or while no worker answers.")
        items.set_function(lambda: float("nan") if self._items is None else self._items)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"simclr_{name}", text, labels, registry=self.registry)
