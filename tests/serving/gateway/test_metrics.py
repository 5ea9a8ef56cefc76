"""/metrics, as Prometheus reads it: every reply is counted where it belongs, and gauges tell what there is."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from tests.serving.gateway.worker import ITEMS, Served, gateway, until


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with gateway(tmp_path_factory.mktemp("gateway"), workers=2) as running:
        yield running


def figures(served: Served) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    reply = served.client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(reply.text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_requests_are_counted_by_operation_route_and_status(served: Served) -> None:
    before = figures(served)
    assert [served.client.post("/v1/embed", content=b"\x89PNG").status_code for _ in range(3)] == [200] * 3
    assert served.client.get("/v1/describe").status_code == 200
    assert served.client.get("/nothing/here").status_code == 404
    assert served.client.post("/v1/embed?k=2", content=b"\x89PNG").status_code == 400
    after = figures(served)
    name = "simclr_request_duration_seconds_count"
    told = {key[1:]: value - before.get(key, 0) for key, value in after.items() if key[0] == name}
    told = {key: value for key, value in told.items() if value}
    assert told == {
        ("embed", "/v1/embed", "200"): 3,
        ("describe", "/v1/describe", "200"): 1,
        ("", "", "404"): 1,
        ("", "/v1/embed", "400"): 1,
        ("", "/metrics", "200"): 1,
    }


def test_frames_and_what_they_carry_are_measured(served: Served) -> None:
    before = figures(served)
    images = [("image", ("a.png", b"\x89PNG"))] * 5
    assert served.client.post("/v1/embed", files=images).status_code == 200
    after = figures(served)
    told = {name: after[name,] - before[name,] for (name, *labels) in after if "frame" in name and not labels}
    assert told["simclr_frame_requests_count"] == told["simclr_frame_duration_seconds_count"] >= 1
    assert (told["simclr_frame_images_sum"], told["simclr_frame_images_count"]) == (5, 1)
    assert after["simclr_request_wait_seconds_count",] == after["simclr_frame_requests_sum",]


def test_gauges_tell_what_there_is(served: Served) -> None:
    told = figures(served)
    assert told["simclr_items",] == ITEMS
    assert told["simclr_workers",] == 2
    assert told["simclr_frames_under_way",] == 0
    assert told["simclr_frames_lost_total",] == 0
    assert {key[1] for key in told if key[0] == "simclr_requests_waiting"} == {"quick", "slow"}
    assert {key[1] for key in told if key[0] == "simclr_body_bytes_held"} == {"small", "large"}
    assert told["process_resident_memory_bytes",] > 10e6


def test_bodies_that_are_held_are_seen(served: Served) -> None:
    url = served.client.base_url
    with socket.create_connection((url.host, url.port or 0)) as unfinished:
        unfinished.sendall(b"POST /v1/embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3000000\r\n\r\nsome")
        until(lambda: figures(served)["simclr_body_bytes_held", "large"] == 3_000_000)
    until(lambda: figures(served)["simclr_body_bytes_held", "large"] == 0)
    assert figures(served)["simclr_request_duration_seconds_count", "", "/v1/embed", "499"] == 1


def test_open_metrics_are_sent_to_who_asks_for_them(served: Served) -> None:
    reply = served.client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    assert "simclr_items" in {family.name for family in open_metrics(reply.text)}  # type: ignore[no-untyped-call]


def test_without_a_worker_there_are_figures_all_the_same(tmp_path: Path) -> None:
    with gateway(tmp_path, behind=False) as alone:
        told = figures(alone)
    assert told["simclr_items",] != told["simclr_items",]
    assert told["simclr_workers",] == 1
