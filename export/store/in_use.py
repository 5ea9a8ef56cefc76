"""Which releases are served just now, by what the servers that follow the store say of themselves.

Left out: how they say it, and whether they are there (`core.releases.servers`).
"""

from core.releases.model_store import ModelStore
from core.releases.servers import StateUnreadable, present_servers
from export.store.errors import StoreError


def served(store: ModelStore) -> dict[int, str]:
    """The versions that a server serves or turns to, with where it is.

    Raises `StoreError` for a server's file that can't be read: it could be about any release.
    """
    try:
        found = present_servers(store)
    except StateUnreadable as error:
        raise StoreError(str(error)) from error
    return {
        version: f"{state.host}, process {state.pid}" for state in found for version in state.versions_of(store.name)
    }
