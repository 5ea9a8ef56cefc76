"""How a server is started: its settings, TorchServe's configuration made of them, and the ports.

Facts about TorchServe that shape it: `maxBatchDelay` 0 means unset (100 ms). The settings of a `models` entry count
only if its name and version are those under which the archive is loaded. An archive that is registered by an address is
copied into the model folder, and deleted there when it is unregistered; so the model folder is the server's own, with
links to archives that were checked, and no address is allowed.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.files.json_text import json_text
from core.machine.machine import default_workers
from core.releases.manifest import check_name
from core.releases.model_store import ModelStore
from serving.collection.index.choice import FAISS, IndexChoice
from serving.gateway.access.options import AccessOptions
from serving.gateway.options import GatewayOptions
from serving.inference.choice import Form
from serving.inference.options import EngineOptions
from serving.protocol.agreed import MODEL
from serving.torchserve.management import RESPONSE_SECONDS

HOST = "127.0.0.1"
# TorchServe always opens two gRPC ports, and one of them registers whatever it is given. The kernel lets a process
# listen at a broadcast address, but never connects anybody to one.
UNREACHABLE = "127.255.255.255"
# in the server's own folder of mode 0700
INFERENCE_SOCKET, MANAGEMENT_SOCKET, METRICS_SOCKET = "inference.sock", "management.sock", "metrics.sock"
_REQUEST_BYTES = 64 * 1024 * 1024


class LaunchError(RuntimeError):
    """TorchServe did not start, or did not get ready."""


@dataclass(frozen=True)
class Settings:
    """How to serve one model archive, or the champion of the releases `name` in the model store `store`.

    `workers` is the number of processes that embed. `batch_size` is the most requests that one of them takes at once;
    whoever would have to wait longer than `max_wait` seconds is refused.
    `access` says who may ask, and at which address; `port` 0 takes any free one. `access_log` writes a line a request,
    and `otlp` is the address of a collector of traces. `keep_previous` keeps the previous release loaded, so that a
    rollback waits for nothing. For `form` and `cache_mb` see `serving.inference.options`, for `index` see
    `serving.collection.index.choice`.
    """

    archive: Path | None = None
    collection: Path | None = None
    port: int = 8080
    workers: int = field(default_factory=default_workers)
    batch_size: int = 32
    max_wait: float = 5.0
    log: Path | None = None
    form: Form = "auto"
    cache_mb: int = 0
    access_log: bool = False
    otlp: str = ""
    store: Path | None = None
    name: str | None = None
    keep_previous: bool = False
    index: str = field(default=FAISS, repr=False)
    access: AccessOptions = field(default_factory=AccessOptions)

    def __post_init__(self) -> None:
        if (self.store is None) != (self.name is None) or (self.archive is None) == (self.store is None):
            raise ValueError(
                "either archive, or both store and name must be given: --archive model_store/digits-1.mar serves this "
                "archive, --store model_store --name digits serves the champion and follows it"
            )
        if self.name is not None:
            check_name(self.name)
        if self.keep_previous and self.store is None:
            raise ValueError("keep_previous is for a server that follows a store: an archive has no release before it")
        if IndexChoice.parse(self.index).local and (self.workers > 1 or self.store is not None):
            raise ValueError(
                f"index is a milvus-lite folder, for one process alone; workers is {self.workers}, and a server "
                "that follows a store sometimes runs two releases: use --archive and --workers 1, or start "
                "`milvus-lite server --data-dir FOLDER.db --host 127.0.0.1` and use --index milvus:http://127.0.0.1:19530"
            )

    @property
    def host(self) -> str:
        """The address at which people reach it."""
        return self.access.host

    @property
    def model_store(self) -> ModelStore | None:
        """The releases whose champion is followed; None with an archive."""
        return ModelStore(self.store, self.name) if self.store is not None and self.name is not None else None

    def gateway_options(self, inference: Path) -> GatewayOptions:
        """What the gateway is told; `inference` is TorchServe's socket."""
        return GatewayOptions(
            socket=str(inference),
            workers=self.workers,
            batch_size=self.batch_size,
            max_wait=self.max_wait,
            access_log=self.access_log,
            otlp=self.otlp,
            access=self.access,
        )

    def engine_options(self, cores: int, folder: Path) -> EngineOptions:
        """How each worker runs the graph: with its share of the `cores`. `folder` is this server's own."""
        return EngineOptions(
            form=self.form,
            threads=max(1, cores // self.workers),
            cache_mb=self.cache_mb,
            cores_lock=str(folder / "cores.lock") if self.workers > 1 else "",
            index=self.index,
        )


def properties(settings: Settings, archive: Path, version: str, ports: Sequence[int]) -> str:
    """TorchServe's config.properties for one archive in a folder of the server's own."""
    models = {
        MODEL: {
            version: {
                "defaultVersion": True,
                "marName": archive.name,
                "minWorkers": settings.workers,
                "maxWorkers": settings.workers,
                "batchSize": 1,  # what waits together comes in one frame
                "maxBatchDelay": 1,  # milliseconds; 0 would mean TorchServe's default of 100
                "responseTimeout": RESPONSE_SECONDS,
            }
        }
    }
    folder = archive.parent.parent
    lines = {
        "inference_address": f"unix:{folder / INFERENCE_SOCKET}",
        "management_address": f"unix:{folder / MANAGEMENT_SOCKET}",
        "metrics_address": f"unix:{folder / METRICS_SOCKET}",
        "use_native_io": "true",  # without it there are no Unix sockets
        "grpc_inference_address": UNREACHABLE,
        "grpc_management_address": UNREACHABLE,
        "grpc_inference_port": str(ports[0]),
        "grpc_management_port": str(ports[1]),
        "model_store": str(archive.parent),
        "load_models": f"{MODEL}={archive.name}",
        "models": json_text(models),
        "disable_token_authorization": "true",
        "decode_input_request": "false",
        "install_py_dep_per_model": "false",
        "enable_envvars_config": "false",
        "allowed_urls": "none",  # a pattern that no address matches: archives come from the model folder alone
        "enable_model_api": str(settings.store is not None).lower(),
        "max_request_size": str(_REQUEST_BYTES),
        "max_response_size": str(_REQUEST_BYTES),
        "job_queue_size": "1000",
        "disable_system_metrics": "true",
        "metrics_mode": "prometheus",  # counted, not logged
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def choose_ports() -> list[int]:
    """Two free ports for TorchServe's gRPC."""
    sockets = [socket.socket() for _ in range(2)]
    try:
        for handle in sockets:
            handle.bind((HOST, 0))
        return [int(handle.getsockname()[1]) for handle in sockets]
    finally:
        for handle in sockets:
            handle.close()


def reachable(ports: Sequence[int]) -> int | None:
    """The first port at which somebody on this machine can connect to TorchServe's gRPC; None if none is."""
    for port in ports:
        for host in (HOST, UNREACHABLE):
            try:
                socket.create_connection((host, port), timeout=1.0).close()
            except OSError:
                continue
            return port
    return None


def version_of(archive: Path) -> str:
    """`digits-3.mar` holds version 3 of release `digits`: as export names its archives."""
    _, dash, version = archive.stem.rpartition("-")
    if not archive.is_file():
        raise LaunchError(f"{archive} does not exist; build it with `simclr export`")
    if not dash or not version.isdigit() or archive.suffix != ".mar":
        raise LaunchError(f"{archive.name} is not named <name>-<version>.mar")
    return version
