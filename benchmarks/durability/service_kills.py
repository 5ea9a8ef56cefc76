"""Every process of a service killed with SIGKILL under load, in turn: is anything lost, and how soon does it answer?

    python -m benchmarks.durability.service_kills [--rounds 50]

`simclr serve` runs as a process of its own, on a small release of random weights. Clients store, delete and search
without pause. Each round kills the gateway, a worker or TorchServe's Java at a random moment, and measures how long it
takes until a search and a write that were sent after the kill are answered, however often they had to be sent. Then the
clients pause, and what the API lists is compared with all that was acknowledged. In the last round the supervisor
itself is killed: what it started must end, the port be free, and a new one must have everything. At the end the
catalogue is read as well.

Failed requests are counted by kind: without a reply; 503 with Retry-After, which says "again"; anything else is
wrong. One that failed though it was sent once the process had gone is counted as `failed_later`. Prints a last line of
JSON, and fails if anything was lost, wrong, late (over 10 seconds) or left over.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from benchmarks.durability.kill_load import (
    AGAIN,
    NO_REPLY,
    Asking,
    Failed,
    LoadClient,
    all_paused,
    missing_and_undeleted,
)
from benchmarks.durability.killed_service import KINDS, KilledService
from benchmarks.durability.service import draw_pictures, prepare
from benchmarks.tools.command import Figures, benchmark
from core.command_line.command import main
from core.machine.machine import usable_cores
from serving.collection.catalogue.opening import open_catalogue

LATEST_SECONDS = 10.0
SUPERVISOR = "supervisor"
_PROBE = "probe"  # the item that is stored to see that writes are possible
_LONGEST_PAUSE = 8.0  # seconds of load before a kill: what dies all the time is given up
_CALM_SECONDS = 0.5  # of load after the service answers again
_SHOWN = 5


class Rounds:
    """Kills, and what came of them."""

    def __init__(self, service: KilledService, clients: Sequence[LoadClient], *, image: bytes, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: dict[str, Counter[str]] = defaultdict(Counter)
        self.outages: dict[str, list[float]] = defaultdict(list)
        self.ended_seconds = 0.0
        self._service = service
        self._clients = clients
        self._chance = random.Random(seed)
        self._image = image
        self._asking = Asking(service.url)

    def kill(self, kind: str) -> None:
        """One round: kill a process of this kind, wait until the service answers, and compare."""
        victims = self._service.wait_for(kind)
        time.sleep(self._chance.random() * _LONGEST_PAUSE)
        killed = time.monotonic()
        gone = self._service.kill(self._chance.choice(victims))
        self._judge(kind, killed, gone)

    def kill_supervisor(self) -> None:
        """The last round; the clients go on meanwhile, and are without a service until the new one answers."""
        killed = time.monotonic()
        self.ended_seconds, left = self._service.kill_supervisor()
        self.counts["left_over"] += left
        self._service.start()
        self._judge(SUPERVISOR, killed, time.monotonic())

    def compare(self, found: dict[str, str]) -> None:
        """Everything that was acknowledged, with what was found; nobody may write meanwhile."""
        expected = {name: label for client in self._clients for name, label in client.expected.items()}
        lost, undeleted = missing_and_undeleted(expected, found)
        self.counts["compared"] += len(expected)
        self.counts["lost"] += len(lost)
        self.counts["undeleted"] += len(undeleted)
        for name in lost[:_SHOWN]:
            print(f"lost: {name} has {found.get(name)!r}, not {expected[name]!r}", file=sys.stderr)
        for name in undeleted[:_SHOWN]:
            print(f"undeleted: {name}", file=sys.stderr)

    def _judge(self, kind: str, killed: float, gone: float) -> None:
        seconds = self._outage(killed)
        self.outages[kind].append(seconds)
        self.counts["late"] += kind != SUPERVISOR and seconds > LATEST_SECONDS
        time.sleep(_CALM_SECONDS)
        with all_paused(self._clients):
            self.compare({name: label for name, label in self._asking.labels().items() if name != _PROBE})
            self._take_failures(kind, gone)

    def _outage(self, killed: float) -> float:
        """Seconds from the kill until a search and a write were answered."""
        while not self._asking.search(self._image):
            time.sleep(0.05)
        while not self._asking.store(_PROBE, "probe", self._image):
            time.sleep(0.05)
        return time.monotonic() - killed

    def _take_failures(self, kind: str, gone: float) -> None:
        for asking in (self._asking, *(client.asking for client in self._clients)):
            for one in asking.failed:
                self._count(one, kind, later=one.begun > gone)
            asking.failed.clear()

    def _count(self, one: Failed, kind: str, *, later: bool) -> None:
        self.failed[kind][one.what] += 1
        self.counts["wrong"] += one.what not in (AGAIN, NO_REPLY)
        if later and kind != SUPERVISOR:
            self.counts["failed_later"] += 1
            print(f"failed though sent once {kind} was gone: {one.what}: {one.text}", file=sys.stderr)
        elif one.what not in (AGAIN, NO_REPLY):
            print(f"wrong after the kill of {kind}: {one.what}: {one.text}", file=sys.stderr)


def run(options: argparse.Namespace, work: Path) -> Figures:
    """All rounds; the figures."""
    work.mkdir(parents=True, exist_ok=True)
    release, archive = prepare(work)
    images = draw_pictures(release).files
    collection = Path(tempfile.mkdtemp(prefix="collection-", dir=work))
    with KilledService(archive, collection, work / "log", workers=options.workers) as service:
        clients = [
            LoadClient(service.url, f"client{number}", images, seed=options.seed) for number in range(options.clients)
        ]
        rounds = Rounds(service, clients, image=images[0], seed=options.seed)
        for number in tqdm(range(options.rounds), desc="kills", mininterval=5):
            rounds.kill(KINDS[number % len(KINDS)])
        rounds.kill_supervisor()
        for client in clients:
            client.stop()
    rounds.compare(_in_catalogue(collection))
    return _figures(options, rounds, clients)


def _in_catalogue(collection: Path) -> dict[str, str]:
    """All items of a collection that nobody serves, by id, with their labels."""
    catalogue = open_catalogue(collection)
    found: dict[str, str] = {}
    cursor: str | None = None
    while True:
        page = catalogue.items.page(limit=1000, cursor=cursor)
        found |= {one.id: one.label or "" for one in page.items if one.id != _PROBE}
        if (cursor := page.cursor) is None:
            catalogue.close()
            return found


def _figures(options: argparse.Namespace, rounds: Rounds, clients: list[LoadClient]) -> Figures:
    names = ("compared", "lost", "undeleted", "wrong", "failed_later", "late", "left_over")
    return {
        "rounds": options.rounds,
        "asked": sum(client.asking.asked for client in clients),
        "acknowledged": sum(client.acknowledged for client in clients),
        **{name: rounds.counts[name] for name in names},
        "failed": {kind: dict(counts) for kind, counts in rounds.failed.items() if counts},
        "longest_outage_seconds": {kind: round(max(found), 2) for kind, found in rounds.outages.items()},
        "all_ended_seconds": round(rounds.ended_seconds, 2),
    }


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=50, help="kills, before that of the supervisor")
    parser.add_argument("--clients", type=int, default=4, help="that ask at once (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="of the service (default: one a core)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of what is written")
    parser.add_argument("--work", type=Path, help="folder for everything; its log is kept (default: a temporary one)")


def _measure(options: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory() as temporary:
        figures = run(options, options.work or Path(temporary))
    for name, value in figures.items():
        print(f"{name:<24}{json.dumps(value) if isinstance(value, dict) else value}")
    return figures


_FAILURES = ("lost", "undeleted", "wrong", "failed_later", "late", "left_over")
COMMAND = benchmark("benchmarks.durability.service_kills", __doc__, _add_arguments, _measure, must_be_zero=_FAILURES)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
