"""What the figures of a benchmark of serving come to: our server beside the ceiling and beside each peer.

A server's saturated throughput is the highest of its closed loops with the same kind of request. None stands for what
was not measured. Ratios of the table's medians.
"""

from collections.abc import Sequence

from benchmarks.serving.requests_of import Reply
from benchmarks.serving.rows import Row
from benchmarks.serving.scenarios import SEVERAL

Ratio = float | None


def ratios(rows: Sequence[Row], *, small: int, large: int, reply: Reply = "json") -> dict[str, Ratio]:
    """The ratios that this project promises; `small` and `large` are the image sizes in pixels."""
    single = saturated(rows, "ours", px=small, images=1, reply=reply)
    return {
        "single_32_vs_ceiling": _ratio(single, ceiling(rows, small)),
        "single_224_vs_ceiling": _ratio(saturated(rows, "ours", px=large, images=1, reply=reply), ceiling(rows, large)),
        "multi16_32_vs_ceiling": _ratio(
            saturated(rows, "ours", px=small, images=SEVERAL, reply=reply), ceiling(rows, small)
        ),
        "vs_torch_fp32": _ratio(single, saturated(rows, "torch", px=small, images=1, reply="json")),
        "vs_litserve": _ratio(single, saturated(rows, "litserve", px=small, images=1, reply=reply)),
        "bulk_vs_ceiling": _bulk(rows, small) if reply == "json" else None,
        "p99_over_p50_at_half_load": _half_load(rows, small) if reply == "json" else None,
    }


def extra_ms_of_one_client(rows: Sequence[Row], px: int) -> Ratio:
    """How much longer than in-process one image takes through our server, at the median, with nobody else about."""
    alone = _figure(rows, "p50_ms", party="ceiling", px=px, load="alone")
    served = _figure(rows, "p50_ms", party="ours", px=px, load="closed, 1")
    return None if alone is None or served is None else round(served - alone, 3)


def saturated(rows: Sequence[Row], party: str, *, px: int, images: int, reply: str) -> Ratio:
    """Images a second of the best closed loop."""
    found = [
        row.images_per_s
        for row in rows
        if row.key[:4] == (party, px, images, reply) and row.key.load.startswith("closed") and row.images_per_s
    ]
    return max(found, default=None)


def ceiling(rows: Sequence[Row], px: int) -> Ratio:
    """Images a second without a server."""
    return _figure(rows, "images_per_s", party="ceiling", px=px)


def _bulk(rows: Sequence[Row], px: int) -> Ratio:
    return _ratio(_figure(rows, "images_per_s", party="bulk", px=px), ceiling(rows, px))


def _half_load(rows: Sequence[Row], px: int) -> Ratio:
    p50, p99 = (_figure(rows, name, party="ours", px=px, load="open, 50%") for name in ("p50_ms", "p99_ms"))
    return _ratio(p99, p50)


def _figure(rows: Sequence[Row], name: str, *, party: str, px: int, load: str = "saturated") -> Ratio:
    wanted = [row for row in rows if (row.key.party, row.key.px, row.key.load) == (party, px, load)]
    return getattr(wanted[0], name) if wanted else None


def _ratio(one: Ratio, other: Ratio) -> Ratio:
    return round(one / other, 4) if one is not None and other else None
