"""The Python client: `from serving.client import Client`."""

from typing import TYPE_CHECKING, Any

from serving.client.errors import ServerError

if TYPE_CHECKING:
    from serving.client.client import Client

__all__ = ["Client", "ServerError"]


def __getattr__(name: str) -> Any:
    """`Client` when it is asked for: `serving.client.errors` alone is to be imported quickly."""
    if name == "Client":
        from serving.client.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
