"""The Python client: `from serving.client import Client`."""

from serving.client.client import Client, ServerError

__all__ = ["Client", "ServerError"]
