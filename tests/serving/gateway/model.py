"""Random requests to a real server, hostile ones among them, against a dictionary: every answer is compared.

`python -m tests.serving.gateway.model --requests 10000` starts a server of its own and runs for long; it prints its
counts as JSON. Hypothesis chooses the requests, and shortens a sequence that ends in a wrong answer.
"""

import argparse
import io
import json
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from numpy.typing import NDArray
from PIL import Image

from benchmarks.durability.service import prepare
from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.torchserve.launch import Server
from serving.torchserve.settings import Settings

HERE = "/v1/collections/default"
PICTURES = 12
STEPS = 40
IDS = st.sampled_from(["a", "b/c", "ü ü", "%2F", "...", "image", "x" * 300, "🐈", "ne?w#", "get", "\\", "'"])
LABELS = st.sampled_from([None, "cat", "dog", "Kätzchen", " ", "null"])
METADATA = st.dictionaries(
    st.sampled_from(["year", "tags", "deep"]),
    st.sampled_from([1999, 2024, "2024", True, ["x", "y"], {"a": None}, 1e300, ""]),
)


def _number(item: dict[str, Any]) -> float:
    year = item["metadata"].get("year")
    return year if isinstance(year, int | float) and not isinstance(year, bool) else float("-inf")


FILTERS: list[tuple[dict[str, Any], Any]] = [
    ({"label": "cat"}, lambda item: item["label"] == "cat"),
    ({"not": {"label": "cat"}}, lambda item: item["label"] != "cat"),
    ({"year": {"gte": 2000}}, lambda item: _number(item) >= 2000),
    ({"year": "2024"}, lambda item: item["metadata"].get("year") == "2024"),
]

HOSTILE: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", f"{HERE}/search", {"json": {"ids": ["\u0000"]}}),
    ("POST", f"{HERE}/search", {"json": {"vectors": [[1e-45] * 3]}}),
    ("POST", f"{HERE}/search", {"content": b'{"vectors": [[3e38, NaN]]}'}),
    ("POST", f"{HERE}/search", {"json": {"ids": ["a"], "k": 0}}),
    ("POST", f"{HERE}/search", {"json": {"ids": ["a"], "k": 10**30}}),
    ("POST", f"{HERE}/search", {"json": {"ids": ["a"], "filter": {"label": {"like": 3}}}}),
    ("POST", f"{HERE}/search", {"json": [1, 2]}),
    ("POST", f"{HERE}/search", {"content": b"{"}),
    ("POST", f"{HERE}/search", {"content": b"[" * 100_000}),
    ("GET", f"{HERE}/items?limit=-1", {}),
    ("GET", f"{HERE}/items?cursor=%00", {}),
    ("GET", f"{HERE}/items?filter={{", {}),
    ("GET", f"{HERE}/items?a=1&a=2", {}),
    ("POST", "/v1/embed", {"content": b"no image"}),
    ("POST", "/v1/embed", {"content": b""}),
    ("POST", "/v1/embed", {"content": b"\xff\xd8\xff\xe0" + bytes(100)}),
    ("POST", "/v1/embed", {"json": {"images": ["data:image/png;base64,%%%"]}}),
    ("POST", "/v1/embed", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
    ("POST", "/v1/embed", {"content": b"x", "headers": {"content-encoding": "gzip"}}),
    ("PUT", f"{HERE}/items/%FF", {"content": b"x"}),
    ("PUT", f"{HERE}/items/n%0Ae%00w", {"content": b"x"}),
    ("PATCH", f"{HERE}/items/a", {"json": {"label": ""}}),
    ("PUT", f"{HERE}/items/", {"content": b"x"}),
    ("DELETE", f"{HERE}/items", {}),
    ("PATCH", f"{HERE}/items/a", {"json": {"label": 3}}),
    ("POST", f"{HERE}/labels", {"content": b"id,label\n\xff\xfe,x"}),
    ("TRACE", f"{HERE}/items", {}),
    ("GET", "/v1/collections/other/items", {}),
    ("POST", "/models/simclr/invoke?op=delete&op=count", {"json": {}}),
    ("GET", "/models/simclr/invoke?op=delete&id=a", {}),
]


@dataclass
class Site:
    """What the machine asks: a server, the pictures with their embeddings, and what was counted."""

    url: str
    pictures: list[bytes]
    vectors: NDArray[np.float32]
    counts: Counter[str]


def pictures(seed: int = 7) -> list[bytes]:
    """Small pictures of random shades, PNG."""
    found = []
    for number in range(PICTURES):
        file = io.BytesIO()
        shades = np.random.default_rng([seed, number]).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(shades).resize((40, 40), Image.Resampling.NEAREST).save(file, "PNG")
        found.append(file.getvalue())
    return found


class Requests(RuleBasedStateMachine):
    """Requests, and the dictionary that the collection must equal."""

    site: Site

    def __init__(self) -> None:
        super().__init__()
        self.http = httpx.Client(base_url=self.site.url, timeout=60, trust_env=False)
        self.known: dict[str, dict[str, Any]] = {}

    def teardown(self) -> None:
        self.http.close()

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        reply = self.http.request(method, path, **options)
        self.site.counts[f"{reply.status_code // 100}xx"] += 1
        assert reply.status_code < 500, (method, path, reply.status_code, reply.text[:500])
        return reply

    def good(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        reply = self.ask(method, path, **options)
        assert reply.is_success, (method, path, reply.status_code, reply.text[:500])
        found: dict[str, Any] = reply.json()
        return found

    @initialize()
    def empty(self) -> None:
        items = self.good("GET", f"{HERE}/items?limit=1000")["items"]
        if items:
            self.good("POST", f"{HERE}/items/delete", json={"ids": [item["id"] for item in items]})
        assert self.good("GET", f"{HERE}/count")["count"] == 0

    @rule(name=IDS, picture=st.integers(0, PICTURES - 1), label=LABELS, metadata=METADATA)
    def put(self, name: str, picture: int, label: str | None, metadata: dict[str, Any]) -> None:
        data = {"metadata": json.dumps(metadata)} | ({"label": label} if label is not None else {})
        reply = self.ask(
            "PUT", f"{HERE}/items/{quote(name, safe='')}", files={"image": self.site.pictures[picture]}, data=data
        )
        assert reply.status_code == (200 if name in self.known else 201), reply.text
        self.known[name] = {"label": label, "metadata": metadata, "picture": picture}

    @rule(names=st.lists(IDS, min_size=1, max_size=4, unique=True), picture=st.integers(0, PICTURES - 1))
    def post(self, names: list[str], picture: int) -> None:
        files = {f"f{at}": self.site.pictures[(picture + at) % PICTURES] for at in range(len(names))}
        items = [{"id": name, "image": f"f{at}", "label": "dog"} for at, name in enumerate(names)]
        results = self.good("POST", f"{HERE}/items", files=files, data={"items": json.dumps(items)})["results"]
        assert [one["id"] for one in results] == names
        for at, name in enumerate(names):
            self.known[name] = {"label": "dog", "metadata": {}, "picture": (picture + at) % PICTURES}

    @rule(name=IDS, label=LABELS, patch=METADATA)
    def patch(self, name: str, label: str | None, patch: dict[str, Any]) -> None:
        patch = {key: value for key, value in patch.items() if not isinstance(value, dict)}
        body = {"label": label, "metadata": patch}
        reply = self.ask("PATCH", f"{HERE}/items/{quote(name, safe='')}", json=body)
        assert reply.status_code == (200 if name in self.known else 404), reply.text
        if name in self.known:
            self.known[name]["label"] = label
            self.known[name]["metadata"] = self.known[name]["metadata"] | patch

    @rule(name=IDS)
    def delete(self, name: str) -> None:
        reply = self.ask("DELETE", f"{HERE}/items/{quote(name, safe='')}")
        assert reply.status_code == (200 if name in self.known else 404), reply.text
        self.known.pop(name, None)

    @rule(chosen=st.sampled_from(FILTERS))
    def delete_by_filter(self, chosen: tuple[dict[str, Any], Any]) -> None:
        written, meant = chosen
        gone = [name for name, item in self.known.items() if meant(item)]
        assert self.good("POST", f"{HERE}/items/delete", json={"filter": written})["deleted"] == len(gone)
        for name in gone:
            del self.known[name]

    @rule(name=IDS)
    def get(self, name: str) -> None:
        reply = self.ask("GET", f"{HERE}/items/{quote(name, safe='')}")
        assert reply.status_code == (200 if name in self.known else 404), reply.text
        if name in self.known:
            self.check_item(reply.json())
            picture = self.ask("GET", f"{HERE}/items/{quote(name, safe='')}/image")
            assert picture.content == self.site.pictures[self.known[name]["picture"]]

    def check_item(self, item: dict[str, Any]) -> None:
        known = self.known[item["id"]]
        assert (item["label"], item["metadata"]) == (known["label"], known["metadata"])

    @rule(limit=st.integers(1, 5))
    def pages(self, limit: int) -> None:
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = self.good("POST", f"{HERE}/items/list", json={"limit": limit, "cursor": cursor})
            for item in page["items"]:
                self.check_item(item)
                seen.append(item["id"])
            if (cursor := page["cursor"]) is None:
                break
        assert sorted(seen) == sorted(self.known)

    @rule(chosen=st.sampled_from(FILTERS))
    def count(self, chosen: tuple[dict[str, Any], Any]) -> None:
        written, meant = chosen
        found = self.good("GET", f"{HERE}/count", params={"filter": json.dumps(written)})["count"]
        assert found == sum(map(meant, self.known.values()))

    @rule(picture=st.integers(0, PICTURES - 1), k=st.sampled_from([1, 3, 50]), by_image=st.booleans())
    def search(self, picture: int, k: int, *, by_image: bool) -> None:
        if by_image:
            found = self.good("POST", f"{HERE}/search", files={"image": self.site.pictures[picture]}, data={"k": k})
        else:
            body = {"vectors": [self.site.vectors[picture].tolist()], "k": k}
            found = self.good("POST", f"{HERE}/search", json=body)
        (result,) = found["results"]
        near = result["neighbours"]
        names = [one["id"] for one in near]
        assert len(set(names)) == min(k, len(self.known))
        scores = {
            name: float(self.site.vectors[item["picture"]].astype(np.float64) @ self.site.vectors[picture])
            for name, item in self.known.items()
        }
        np.testing.assert_allclose([one["score"] for one in near], [scores[name] for name in names], atol=1e-4)
        best = sorted(scores.values(), reverse=True)[: len(near)]
        np.testing.assert_allclose([one["score"] for one in near], best, atol=1e-4)

    @rule(chosen=st.sampled_from(HOSTILE))
    def hostile(self, chosen: tuple[str, str, dict[str, Any]]) -> None:
        method, path, options = chosen
        reply = self.ask(method, path, **options)
        assert 400 <= reply.status_code < 500, (method, path, reply.status_code, reply.text[:300])
        assert reply.json()["error"]["message"]


def run(site: Site, *, requests: int, seed: int | None = None) -> None:
    """Ask at least so many requests; the first wrong answer is an AssertionError."""
    bound = type("Bound", (Requests,), {"site": site})
    while site.counts.total() < requests:
        examples = max(1, min(25, (requests - site.counts.total()) // STEPS + 1))
        run_state_machine_as_test(
            bound,
            settings=settings(
                max_examples=examples,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                derandomize=seed is not None,
                suppress_health_check=[*HealthCheck],
            ),
        )


def main() -> int:
    """Start a server and ask it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        release, archive = prepare(Path(folder))
        shown = pictures()
        engine = Engine.open(release.folder, options=EngineOptions(form="onnx", threads=1))
        vectors = np.stack([one.embedding for one in engine.embed_files(shown)])  # type: ignore[union-attr]
        counts: Counter[str] = Counter()
        with Server(Settings(archive, collection=Path(folder, "collection"), port=0, form="onnx")) as server:
            run(Site(server.url, shown, vectors, counts), requests=given.requests)
    print(json.dumps({"requests": counts.total(), **counts, "divergences": 0}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
