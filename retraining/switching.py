"""Putting a release in place of the champion, and seeing that every server follows; back again where one refuses.

The alias is the truth: servers follow it by themselves (`serving.torchserve.rollover.following`). So a promotion is one
small file, and all that is left to do here is to wait, and to take it back if a server can't serve the new release.
"""

import time
from collections.abc import Callable, Sequence

from core.releases.model_store import CHAMPION, ModelStore
from core.releases.servers import ServerState, live_servers
from retraining.errors import NotFollowed

POLL_SECONDS = 0.5


def wait_until_followed(
    store: ModelStore, version: int, *, seconds: float, tell: Callable[[str], None]
) -> Sequence[ServerState]:
    """Return when every live server answers with `version`; raises `NotFollowed` when one can't, or not in time."""
    wanted, reported = f"{store.name}/{version}", ("", False)
    deadline = time.monotonic() + seconds
    while True:
        servers = live_servers(store)
        behind = [server for server in servers if server.release != wanted or server.state != "serving"]
        for server in behind:
            if server.refused is not None and server.refused.version == version and server.refused.final:
                raise NotFollowed(f"{server.inference} refused {wanted}: {server.refused.reason}")
        if not behind:
            return servers
        why = next((f"; {one.inference}: {one.refused.reason}" for one in behind if one.refused is not None), "")
        if time.monotonic() > deadline:
            raise NotFollowed(
                f"{behind[0].inference} serves {behind[0].release} still, {seconds:.0f} s after the promotion of "
                f"{wanted}{why}"
            )
        status = f"{len(servers) - len(behind)} of {len(servers)} servers answer with {wanted}"
        if (status, bool(why)) != reported:  # reasons have numbers in them that change all the time
            tell(status + why)
            reported = status, bool(why)
        time.sleep(POLL_SECONDS)


def champion_is(store: ModelStore, version: int) -> bool:
    """Whether the release is the champion already."""
    return store.alias(CHAMPION) == version
