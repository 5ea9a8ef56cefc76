"""Who asks, and whether that is enough for what is asked."""

from dataclasses import dataclass

from serving.protocol.messages import RequestError
from serving.protocol.operations import Scope

_RANKS: dict[Scope, int] = {"read": 0, "write": 1, "admin": 2}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the name of a key and what it allows.

    `collections` is empty where the key is for all of them. `rate` is in requests a second, None for no bound.
    """

    name: str
    scope: Scope
    collections: frozenset[str] = frozenset()
    rate: float | None = None

    def refusal(self, scope: Scope, collection: str | None) -> RequestError | None:
        """Why this caller may not have what needs `scope`, of a collection or (None) of none; None if they may.

        Whether there is a collection of that name makes no difference.
        """
        if _RANKS[self.scope] < _RANKS[scope]:
            return RequestError(f"this needs a key with scope {scope}; the key {self.name} has scope {self.scope}", 403)
        if self.collections and collection is not None and collection not in self.collections:
            theirs = ", ".join(sorted(self.collections))
            return RequestError(f"the key {self.name} is not for the collection {collection!r}, only for {theirs}", 403)
        return None


ANYONE = Caller("", "admin")  # where no key is needed
NOBODY = Caller("", "read")  # who asks for what is public
