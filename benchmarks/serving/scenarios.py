"""Which loads a benchmark of serving puts on which server, for how long: the full plan and the quick one.

A closed loop at 1, 16 and 64 clients; an open loop at half and four fifths of what our server can do; one image and 16
images a request; JSON and binary replies. The quick plan has what the ratios need, and no more.
"""

from dataclasses import dataclass
from typing import Literal

from benchmarks.serving.load import Closed, Load, Open
from benchmarks.serving.requests_of import Dialect, Reply

Party = Literal["ceiling", "ours", "litserve", "torch", "bulk"]
PARTIES: tuple[Party, ...] = ("ceiling", "ours", "litserve", "torch", "bulk")
SEVERAL = 16


@dataclass(frozen=True)
class Scenario:
    """One load: `clients` in a closed loop, or (0) arrivals at `share` of our server's capacity."""

    clients: int = 0
    share: float = 0.0
    images: int = 1
    reply: Reply = "json"

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"closed, {self.clients}" if self.clients else f"open, {self.share:.0%}"

    @property
    def tells_capacity(self) -> bool:
        """Whether its throughput is among those of which the highest is a server's capacity."""
        return self.clients > 0 and self.images == 1 and self.reply == "json"

    def suits(self, dialect: Dialect) -> bool:
        """Whether a server can be asked so."""
        return self.reply in dialect.replies and (self.images == 1 or dialect.several)


@dataclass(frozen=True)
class Plan:
    """How long and how often; `choosing` seconds for each setting tried, `limit` seconds in all (0: as it takes).

    `batches` are those that the ceiling is tried with, `large_batches` the same for photographs.
    """

    rounds: int = 3
    seconds: float = 10.0
    warm_up: float = 2.0
    choosing: float = 3.0
    batches: tuple[int, ...] = (4, 8, 16, 32)
    large_batches: tuple[int, ...] = (4, 8, 16, 32)
    quick: bool = False
    limit: float = 0.0

    @property
    def parties(self) -> tuple[Party, ...]:
        """Who takes part if nobody is named; starting bulk embedding twice would take too much of a quick run."""
        return tuple(party for party in PARTIES if not (self.quick and party == "bulk"))

    def load(self, scenario: Scenario, capacity: float) -> Load:
        """The load itself; `capacity` in requests a second is needed for an open loop."""
        if scenario.clients:
            return Closed(scenario.clients, seconds=self.seconds, warm_up=self.warm_up)
        return Open(scenario.share * capacity, seconds=self.seconds, warm_up=self.warm_up)

    def scenarios(self, party: Party, *, large: bool) -> tuple[Scenario, ...]:
        """What a server is put to at an image size; closed loops first, as open ones need a capacity."""
        if not self.quick:
            return FULL
        return QUICK.get((party, large), ())


FULL = (
    *(Scenario(clients) for clients in (1, 16, 64)),
    Scenario(64, reply="binary"),
    Scenario(16, images=SEVERAL),
    Scenario(16, images=SEVERAL, reply="binary"),
    Scenario(share=0.5),
    Scenario(share=0.8),
)
QUICK: dict[tuple[Party, bool], tuple[Scenario, ...]] = {
    ("ours", False): (Scenario(1), Scenario(64), Scenario(8, images=SEVERAL), Scenario(share=0.5)),
    ("litserve", False): (Scenario(64),),
    ("torch", False): (Scenario(16),),
    ("ours", True): (Scenario(64),),
}
QUICK_PLAN = Plan(
    rounds=2,
    seconds=2.5,
    warm_up=0.7,
    choosing=1.0,
    batches=(8, 16, 32),
    large_batches=(4, 8),
    quick=True,
    limit=285.0,
)
