"""What the gateway's process is told by whoever starts it."""

from pathlib import Path

import msgspec

from serving.gateway.access.options import AccessOptions


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`socket` is TorchServe's inference socket, behind which `workers` embed.

    Each of them takes at most `batch_size` requests at once. Whoever would wait longer than `max_wait` seconds is
    refused. `access` says who may ask; `access_log` writes a line for every request. `otlp` is where an
    OpenTelemetry collector takes traces, if one does.
    """

    socket: str
    workers: int = 1
    batch_size: int = 32
    max_wait: float = 5.0
    access_log: bool = False
    otlp: str = ""
    access: AccessOptions = AccessOptions()

    def save(self, path: Path) -> None:
        """Write them to a file."""
        path.write_bytes(msgspec.json.encode(self))

    @classmethod
    def load(cls, path: Path) -> "GatewayOptions":
        """Read them from a file."""
        return msgspec.json.decode(path.read_bytes(), type=cls)
