"""The Python client: `from serving.client import Client`, or `AsyncClient`."""

from typing import TYPE_CHECKING, Any

from serving.client.errors import ServerError

if TYPE_CHECKING:
    from serving.client.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "ServerError"]


def __getattr__(name: str) -> Any:
    """A client when it is asked for: `serving.client.errors` alone is to be imported quickly."""
    if name in ("AsyncClient", "Client"):
        from serving.client import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
