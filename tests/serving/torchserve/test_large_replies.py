"""Large replies to many clients at once: each comes in the end, soon, and small requests are answered meanwhile."""

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx

from serving.torchserve.launch import Server
from tests.conftest import Chain

CLIENTS, PROCESSES = 16, 2
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


def test_32_clients_that_list_256_items_with_vectors_all_get_them(server: Server, chain: Chain) -> None:
    address = f"{server.url}/models/{server.model}/invoke"
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
    items = len(chain.stored()[0])
    print(f"{len(found)} listings of {items} items, {found[0][2]} bytes each, in {took:.1f} s; count {longest:.1f} s")
    assert {count for _, count, _ in found} == {items}, "every client has every item"
    assert {status for statuses, _, _ in found for status in statuses} <= {200, 503}
    assert took < SECONDS
    assert longest < SECONDS / 4
