"""The options of who may ask, and their values."""

import argparse
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, field

from serving.gateway.access.hosts import plain_name
from serving.gateway.access.key_file import default_path
from serving.gateway.access.origins import origin


def _default_keys() -> str:
    return str(default_path().absolute())


class AccessOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may ask a gateway that listens at `host`.

    `keys`, `tls_cert` and `tls_key` are paths; without a certificate there is no https. `behind_proxy`: every request
    comes through a proxy that has it.
    """

    host: str = "127.0.0.1"
    keys: str = field(default_factory=_default_keys)
    tls_cert: str = ""
    tls_key: str = ""
    behind_proxy: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("--tls-cert and --tls-key need each other: a certificate and its private key")

    @property
    def tls(self) -> bool:
        """Whether it is https that we are asked by."""
        return bool(self.tls_cert)


def add_access(parser: argparse._ActionsContainer) -> None:
    """Options that `access_of` reads."""
    add = parser.add_argument
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen at; others than loopback need a key (default: %(default)s)",
    )
    add(
        "--keys",
        type=Path,
        metavar="FILE",
        help="the key file that `simclr keys` makes (default: $SIMCLR_KEYS, else ~/.config/simclr/keys.json)",
    )
    add("--tls-cert", type=Path, metavar="FILE", help="certificate chain (PEM), for https")
    add("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    add(
        "--behind-proxy", action="store_true", help="all requests come through a proxy that has TLS; heed X-Forwarded-*"
    )
    for option, check, metavar, what in (
        ("--allow-host", plain_name, "NAME", "another name by which clients call this server"),
        ("--allow-origin", origin, "ORIGIN", "a web site whose pages may ask, such as https://images.example.org"),
    ):
        add(
            option,
            type=_checked(check),
            action="append",
            default=[],
            metavar=metavar,
            help=f"{what} (may be repeated)",
        )


def access_of(given: argparse.Namespace) -> AccessOptions:
    """What was typed; raises ValueError where it does not belong together."""
    paths = {
        name: str(path.absolute())
        for name in ("keys", "tls_cert", "tls_key")
        if (path := getattr(given, name)) is not None
    }
    return AccessOptions(
        host=given.host.strip("[]"),
        behind_proxy=given.behind_proxy,
        allowed_hosts=tuple(given.allow_host),
        allowed_origins=tuple(given.allow_origin),
        **paths,
    )


def _checked(check: Callable[[str], str]) -> Callable[[str], str]:
    """The check as argparse's `type`, which keeps the sentence."""

    def typed(text: str) -> str:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return typed
