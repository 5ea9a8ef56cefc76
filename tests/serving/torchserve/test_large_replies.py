"""Large replies to many clients at once: each comes in the end, soon, and small requests are answered meanwhile."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.protocol.messages import Answer
from serving.protocol.operations import NewItem, UpsertRequest
from serving.torchserve.launch import Server
from serving.torchserve.settings import Settings
from tests.conftest import Chain

CLIENTS, PROCESSES, ITEMS = 16, 2, 256
NOTE = "n" * 16_000  # with a vector of 512 numbers as large as a vector of 2,048
SECONDS = 60
ROOT = Path(__file__).parents[3]

ASK = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
import httpx

address, clients, until = sys.argv[1], int(sys.argv[2]), time.monotonic() + float(sys.argv[3])

def ask(number):
    statuses = []
    with httpx.Client(timeout=until - time.monotonic()) as http:
        while time.monotonic() < until:
            reply = http.get(address)
            statuses.append(reply.status_code)
            if reply.status_code != 503:
                return statuses, len(reply.json()["items"]), len(reply.content)
            time.sleep(float(reply.headers["retry-after"]))
    return statuses, 0, 0

with ThreadPoolExecutor(clients) as pool:
    print(json.dumps(list(pool.map(ask, range(clients)))))
"""


@pytest.fixture(scope="module")
def heavy(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose collection has 256 items, which make a reply of 6 MB."""
    folder = tmp_path_factory.mktemp("heavy") / "collection"
    engine = Engine.open(chain.release.folder, folder, options=EngineOptions(form="onnx", cache_mb=8))
    image = chain.test_files()[0]
    for start in range(0, ITEMS, 64):
        items = tuple(NewItem(str(n), image, metadata={"note": NOTE}) for n in range(start, start + 64))
        (answer,) = engine.answer([UpsertRequest(items)])
        assert isinstance(answer, Answer)
    with Server(Settings(chain.archive, collection=folder, port=0, form="onnx")) as running:
        yield running


def test_32_clients_that_list_256_items_with_vectors_all_get_them(heavy: Server) -> None:
    address = f"{heavy.url}/models/{heavy.model}/invoke"
    listing = f"{address}?op=list&limit=256&include=vector"
    command = [sys.executable, "-c", ASK, listing, str(CLIENTS), str(SECONDS)]
    started = time.monotonic()
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(PROCESSES)]
    longest = 0.0
    while any(process.poll() is None for process in asking) and time.monotonic() < started + 2 * SECONDS:
        before = time.monotonic()
        assert httpx.get(f"{address}?op=count", timeout=SECONDS).status_code == 200
        longest = max(longest, time.monotonic() - before)
    found = [line for process in asking for line in json.loads(process.communicate(timeout=SECONDS)[0])]
    took = time.monotonic() - started
    print(f"{len(found)} listings, {found[0][2]} bytes each, in {took:.1f} s; a count in {longest:.1f} s at worst")
    assert {count for _, count, _ in found} == {ITEMS}, "every client has every item"
    assert {status for statuses, _, _ in found for status in statuses} <= {200, 503}
    assert took < SECONDS
    assert longest < SECONDS / 4
