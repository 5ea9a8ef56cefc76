"""What a rollover waits for, and what it does not believe; whole rollovers are in test_following.py."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from threading import Event

import numpy as np
import pytest

from core.releases.model_store import ModelStore
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.opening import open_catalogue
from serving.torchserve.management import Management
from serving.torchserve.rollover.canaries import CanaryError, try_release
from serving.torchserve.rollover.rollover import NotYet, Site, _wait_until_caught_up
from tests.conftest import Chain

WAITING = 300


@pytest.fixture
def catalogue(chain: Chain, tmp_path: Path) -> Catalogue:
    """A collection of which 300 items wait for a vector by the chain's release."""
    catalogue = open_catalogue(tmp_path / "collection", create=True)
    catalogue.spaces.open(chain.release.space)
    items = [Item(str(at), Source.kept(str(at).encode())) for at in range(WAITING)]
    catalogue.upsert(items, np.eye(1, 16, dtype=np.float32).repeat(WAITING, axis=0), "b" * 64)
    assert catalogue.spaces.count_pending(chain.release.space) == WAITING
    return catalogue


@pytest.fixture
def site(catalogue: Catalogue, chain: Chain, tmp_path: Path) -> Site:
    nowhere = Management(tmp_path / "nowhere.sock")
    store = ModelStore(chain.store, "chain")
    return Site(
        store=store,
        management=nowhere,
        inference=tmp_path / "nowhere.sock",
        url="",
        models=tmp_path,
        busy=tmp_path,
        log=tmp_path / "log",
        workers=1,
        collection=catalogue.folder,
    )


def test_a_backlog_is_waited_for(catalogue: Catalogue, chain: Chain, site: Site) -> None:
    space = chain.release.space
    waiter = threading.Thread(target=_wait_until_caught_up, args=(site, chain.release, Event()))
    waiter.start()
    waiter.join(0.5)
    assert waiter.is_alive()
    first = catalogue.spaces.pending(space, limit=100)
    digests = [Source.kept(one.id.encode()).sha256 for one in first]
    catalogue.spaces.fill(
        space, [one.row for one in first], digests, np.eye(1, 16, dtype=np.float32).repeat(100, axis=0)
    )
    waiter.join(30)
    assert not waiter.is_alive()


def test_a_backlog_that_does_not_shrink_is_no_refusal_for_good(
    chain: Chain, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.torchserve.rollover.rollover._STALLED_SECONDS", 0.1)
    with pytest.raises(NotYet, match="300 items wait for an embedding"):
        _wait_until_caught_up(site, chain.release, Event())


class _Other(BaseHTTPRequestHandler):
    """A server whose code answers otherwise than ours."""

    title = ""

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Nothing: the base class wants the client's address, which has no parts here."""

    def do_POST(self) -> None:
        """Names the release and nothing else."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"release": self.title}).encode())


@pytest.fixture
def other(chain: Chain, tmp_path: Path) -> Iterator[Path]:
    _Other.title = chain.release.manifest.title
    socket = tmp_path / "other.sock"
    with UnixStreamServer(str(socket), _Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield socket
        server.shutdown()


def test_an_answer_of_another_form_is_a_failure_of_the_canary(chain: Chain, other: Path) -> None:
    with pytest.raises(CanaryError, match="has an unknown form: KeyError 'digest'"):
        try_release(other, chain.release, 1, search=False)
