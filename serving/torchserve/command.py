"""Serve a release until Ctrl-C; what it starts is in `serving.torchserve.launch`."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from core.command_line.command import Command, main
from core.command_line.values import not_negative, port_number, positive
from serving.collection.index.choice import index_name
from serving.gateway.access.options import access_of, add_access
from serving.gateway.collector import collector
from serving.inference.choice import FORMS
from serving.torchserve.service_manager import READY, STOPPING, notify
from serving.torchserve.settings import LaunchError, Settings

_SETTINGS = {one.name for one in fields(Settings)}
_DETAILS = """\
simclr serve --store model_store --name digits --collection runs/digits/collection
simclr serve --archive model_store/digits-1.mar --collection runs/digits/collection

The first serves the champion of the store, and rolls over to another release whenever the champion changes. The second
serves this archive until it ends. It listens at 127.0.0.1; to be reached from elsewhere (--host) it needs keys, and a
certificate or a proxy that has one. A server that is stopped, by Ctrl-C or SIGTERM, first answers what it was asked,
for at most 20 seconds, and exits with 0; a second signal stops it at once. One that ends by itself exits with 1 and
says why, and its log stays.
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--store", type=Path, help="model store whose champion is followed, with --name")
    add("--name", help="whose champion: model_store/<name>/<version>")
    add("--archive", type=Path, help="instead of --store: one archive, model_store/<name>-<version>.mar")
    add("--collection", type=Path, help="folder of the collection to search in (default: none, so no search)")
    add("--port", type=port_number, default=8080, help="port; 0 takes a free one (default: %(default)s)")
    add_access(parser.add_argument_group("who may ask"))
    add("--workers", type=positive, help="worker processes (default: two a GPU, else one a core and at most four)")
    add("--batch-size", type=positive, default=32, help="most requests in one batch (default: %(default)s)")
    add("--max-wait", type=positive, metavar="SECONDS", help="who would wait longer is refused, with 503 (default: 5)")
    add(
        "--log",
        type=Path,
        help="file for TorchServe's log, rotated (default: one that goes when the server is stopped)",
    )
    add("--form", choices=FORMS, default="auto", help="which file of the release runs (default: what suits)")
    add("--cache-mb", type=not_negative, default=0, help="megabytes of embeddings kept for images that come again")
    add("--index", type=index_name, metavar="faiss|milvus:URI", help="what the collection is searched with")
    add("--access-log", action="store_true", help="log a line of JSON for every request")
    add("--otlp", type=collector, metavar="URL", help="OpenTelemetry collector for traces: http://127.0.0.1:4318")
    add("--keep-previous", action="store_true", help="keep the previous release loaded, for a quick rollback")


def _run(given: argparse.Namespace) -> int:
    """Serve until stopped, which is a success; TorchServe ending by itself is not."""
    from serving.torchserve.launch import Server  # with FAISS and all that a worker needs

    access = access_of(given)
    said = {name: value for name, value in vars(given).items() if value is not None and name in _SETTINGS}
    settings = Settings(access=access, **said)
    try:
        with Server(settings) as server:
            _announce(server.url, server.log, kept=settings.log is not None, searches=settings.collection is not None)
            notify(READY)
            try:
                server.wait()
            except (KeyboardInterrupt, SystemExit):
                notify(STOPPING)
                server.drain()  # a second signal ends this, too
                raise
    except (KeyboardInterrupt, SystemExit):
        print("stopped", file=sys.stderr)
        return 0


def _announce(url: str, log: Path, *, kept: bool, searches: bool) -> None:
    here = "" if url.endswith(":8080") else f" --url {url}"
    print(f"ready: {url} (Ctrl-C stops)")
    print(f"log: {log}{'' if kept else ', until the server stops; --log FILE keeps it'}")
    print(f"next: simclr {'search IMAGE' if searches else 'embed IMAGE --out embeddings.npy'}{here}", flush=True)


COMMAND = Command(
    "serve",
    "Serve a store's champion, or one archive, until Ctrl-C.",
    _add_arguments,
    _run,
    details=_DETAILS,
    errors=(LaunchError,),
)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
