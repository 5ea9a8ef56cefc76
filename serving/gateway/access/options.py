"""The options of who may ask, and their values."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from serving.gateway.access.hosts import plain_name
from serving.gateway.access.key_file import default_path
from serving.gateway.access.origins import origin


@dataclass(frozen=True, kw_only=True)
class AccessOptions:
    """Who may ask a gateway that listens at `host`.

    `tls`: it has a certificate. `behind_proxy`: every request comes through a proxy.
    """

    host: str = "127.0.0.1"
    keys: Path = field(default_factory=default_path)
    tls: bool = False
    behind_proxy: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()


def add_access(parser: argparse._ActionsContainer) -> None:
    """All but --host, which the gateway has beside --port."""
    parser.add_argument(
        "--keys",
        type=Path,
        default=default_path(),
        metavar="FILE",
        help="the key file that `simclr keys` makes (default: %(default)s)",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain (PEM), for https")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    parser.add_argument(
        "--behind-proxy", action="store_true", help="all requests come through a proxy that has TLS; heed X-Forwarded-*"
    )
    parser.add_argument(
        "--allow-host",
        type=_checked(plain_name),
        action="append",
        default=[],
        metavar="NAME",
        help="another name by which clients call this server (may be repeated)",
    )
    parser.add_argument(
        "--allow-origin",
        type=_checked(origin),
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a web site whose pages may ask, such as https://images.example.org (may be repeated)",
    )


def access_of(given: argparse.Namespace) -> AccessOptions:
    """What was typed; raises ValueError where it does not belong together."""
    if (given.tls_cert is None) != (given.tls_key is None):
        raise ValueError("--tls-cert and --tls-key need each other: a certificate and its private key")
    return AccessOptions(
        host=given.host,
        keys=given.keys,
        tls=given.tls_cert is not None,
        behind_proxy=given.behind_proxy,
        allowed_hosts=tuple(given.allow_host),
        allowed_origins=tuple(given.allow_origin),
    )


def _checked(check: Callable[[str], str]) -> Callable[[str], str]:
    """The check as argparse's `type`, which keeps the sentence."""

    def typed(text: str) -> str:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return typed
