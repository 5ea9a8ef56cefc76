"""The collector that traces go to, and whether there are the packages for it; none of them is imported."""

import argparse
from importlib.util import find_spec
from urllib.parse import urlsplit

_NEEDED = "opentelemetry.exporter.otlp.proto.http"


def collector(text: str) -> str:
    """The address of a collector that takes OTLP by HTTP, as argparse's `type`."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise argparse.ArgumentTypeError(f"is {text!r}; it must be an address such as http://127.0.0.1:4318")
    return text


def check_traces(address: str) -> None:
    """Raises ValueError if traces are to go to an address, and what sends them is not installed."""
    if address and not _installed():
        raise ValueError("--otlp needs OpenTelemetry's SDK and its exporter: pip install '.[traces]'")


def _installed() -> bool:
    try:
        return find_spec(_NEEDED) is not None
    except ModuleNotFoundError:
        return False
