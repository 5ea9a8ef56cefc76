"""The figures of one party under one load: a row of the table, and the median row of several rounds."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import median
from typing import Any, NamedTuple


class Key(NamedTuple):
    """What tells one row from another; `px` is the image size, `images` how many are in a request."""

    party: str
    px: int
    images: int
    reply: str
    load: str


@dataclass(frozen=True)
class Row:
    """Figures; None where there is nothing to measure.

    `cpu` is how many cores the server's processes kept busy, `generator_cpu` the same of the load generator; `pss_mb`
    counts memory that processes share once, `rss_mb` once a process; `late_p99_ms` is the generator's own delay.
    """

    key: Key
    requests_per_s: float | None = None
    images_per_s: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    cpu: float | None = None
    pss_mb: float | None = None
    rss_mb: float | None = None
    generator_cpu: float | None = None
    late_p99_ms: float | None = None
    errors: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Flat, rounded."""
        figures = {name: _rounded(value) for name, value in asdict(self).items() if name not in ("key", "errors")}
        return {**self.key._asdict(), **figures, "errors": self.errors}


FIGURES = tuple(one.name for one in fields(Row) if one.name not in ("key", "errors"))


def median_rows(rows: Iterable[Row]) -> list[Row]:
    """One row for each key, in the order of their first appearance: medians, and the sum of the errors."""
    by_key: dict[Key, list[Row]] = {}
    for row in rows:
        by_key.setdefault(row.key, []).append(row)
    return [_median(same) for same in by_key.values()]


def table(rows: Sequence[Row]) -> str:
    """All rows as text."""
    head = f"{'':<9}{'px':>4}{'images':>7} {'reply':<7}{'load':<12}"
    head += "".join(f"{name:>10}" for name in _COLUMNS)
    return "\n".join([head, *map(_line, rows)])


_COLUMNS = {
    "req/s": "requests_per_s",
    "images/s": "images_per_s",
    "p50 ms": "p50_ms",
    "p95 ms": "p95_ms",
    "p99 ms": "p99_ms",
    "max ms": "max_ms",
    "cores": "cpu",
    "PSS MB": "pss_mb",
    "RSS MB": "rss_mb",
    "gen cores": "generator_cpu",
    "late ms": "late_p99_ms",
}


def _line(row: Row) -> str:
    key = row.key
    line = f"{key.party:<9}{key.px:>4}{key.images:>7} {key.reply:<7}{key.load:<12}"
    line += "".join(_cell(getattr(row, name)) for name in _COLUMNS.values())
    refused = ", ".join(f"{count} of status {status}" for status, count in row.errors.items())
    return f"{line}  errors: {refused}" if refused else line


def _cell(value: float | None) -> str:
    if value is None:
        return f"{'-':>10}"
    return f"{value:>10,.0f}" if value >= 1000 else f"{value:>10.2f}" if value < 10 else f"{value:>10.1f}"


def _median(rows: Sequence[Row]) -> Row:
    figures: dict[str, Any] = {}
    for name in FIGURES:
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        figures[name] = median(values) if values else None
    errors: Counter[str] = Counter()
    for row in rows:
        errors.update(row.errors)
    return replace(rows[0], **figures, errors=dict(errors))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
