"""A client of TorchServe's management API: the versions of one model, their workers, and which of them is the default.

What TorchServe 0.12 does, as tried: registering and deleting is switched off unless `enable_model_api` is set. A new
version does not become the default, and the default can't be unregistered. Requests that wait in the queue of a version
are never answered once it is unregistered, so the queue must be drained first. A call runs in one of the few threads
that also carry inference connections, which wait meanwhile. So nothing here waits for workers, and a model is
registered as a folder, because TorchServe would unpack an archive in that thread.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from serving.protocol.agreed import MODEL

_SECONDS = 30.0
RESPONSE_SECONDS = 120


class ManagementError(RuntimeError):
    """TorchServe refused, or did not answer."""


class NoAnswer(ManagementError):
    """TorchServe did not answer: whether it did what was asked is unknown."""


@dataclass(frozen=True)
class Worker:
    """A worker process, by the name that TorchServe's log has for it (9000 in W-9000-simclr_1); `pid` 0 is unknown."""

    id: str
    pid: int
    status: str


@dataclass(frozen=True)
class Registered:
    """A version in TorchServe: what it was loaded from, the workers that it should have, and the requests that wait.

    `ready` counts those of `all` that can work.
    """

    version: int
    workers: int
    ready: int
    pending: int
    url: str = ""
    all: tuple[Worker, ...] = ()


class Management:
    """The management API of one server, at its Unix socket; `close` it in the end."""

    def __init__(self, socket: Path, model: str = MODEL) -> None:
        self.socket = socket
        self.model = model
        transport = httpx.HTTPTransport(uds=str(socket))
        self._http = httpx.Client(base_url="http://management", transport=transport, timeout=_SECONDS, trust_env=False)

    def names(self) -> set[str]:
        """Every model that is registered."""
        return {found["modelName"] for found in self._ask("GET", "/models", {"limit": 1000})["models"]}

    def versions(self) -> dict[int, Registered]:
        """Every version that is registered."""
        return {found.version: found for found in map(_registered, self._call("GET", "/all"))}

    def default(self) -> int:
        """The version that answers requests that name no version."""
        (found,) = self._call("GET", "")
        return _registered(found).version

    def register(self, folder: str) -> None:
        """Register a folder in the server's model folder as another version; it has no workers until `scale`."""
        options: dict[str, Any] = {"url": folder, "model_name": self.model, "initial_workers": 0}
        options |= {"batch_size": 1, "max_batch_delay": 1, "response_timeout": RESPONSE_SECONDS}
        self._ask("POST", "/models", options)

    def scale(self, version: int, workers: int) -> None:
        """Ask for this many workers, without waiting for them."""
        self._call("PUT", f"/{version}", {"min_worker": workers, "max_worker": workers})

    def set_default(self, version: int) -> None:
        """Send requests that name no version to this one from now on."""
        self._call("PUT", f"/{version}/set-default")

    def unregister(self, version: int) -> None:
        """End a version's workers at once, whatever they are doing; it must not be the default."""
        self._call("DELETE", f"/{version}")

    def unregister_model(self, name: str) -> None:
        """End a model of another name."""
        self._ask("DELETE", f"/models/{name}", None)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _call(self, method: str, path: str, options: dict[str, Any] | None = None) -> Any:
        return self._ask(method, f"/models/{self.model}{path}", options)

    def _ask(self, method: str, path: str, options: dict[str, Any] | None) -> Any:
        what = f"{method} {path} of TorchServe's management API"
        try:
            reply = self._http.request(method, path, params=options)
        except httpx.TransportError as error:
            raise NoAnswer(f"{what} had no answer: {type(error).__name__} {error}") from error
        if reply.status_code not in (200, 202):
            raise ManagementError(f"{what} was answered with {reply.status_code}: {_message(reply)}")
        return reply.json()


def _registered(found: dict[str, Any]) -> Registered:
    workers = tuple(Worker(str(one["id"]), int(one["pid"]), str(one["status"])) for one in found["workers"])
    return Registered(
        version=int(found["modelVersion"]),
        workers=int(found["minWorkers"]),
        ready=sum(worker.status == "READY" for worker in workers),
        pending=int(found["jobQueueStatus"]["pendingRequests"]),
        url=str(found["modelUrl"]),
        all=workers,
    )


def _message(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["message"])
    except (ValueError, KeyError, TypeError):
        return reply.text[:200]
