"""Labels from a table of text, as spreadsheets and scripts write it: CSV or TSV with a line of column names.

    id,label
    cats/1.jpg,cat
    "a, b.jpg",dog

Read are UTF-8, with or without a byte-order mark, and UTF-16 with one. Columns are separated by commas, semicolons,
tabs or bars, whichever the first line has; rows in which nothing is written are passed over.
"""

import codecs
import csv
import io
from collections.abc import Iterator

from core.command_line.endings import counted
from serving.protocol.agreed import ID_COLUMN, LABEL_COLUMN
from serving.protocol.messages import RequestError

_DELIMITERS = ",;\t|"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Row = tuple[int, list[str]]  # with the number of the line that it begins on


def labels_from_csv(
    data: bytes, *, id_column: str = ID_COLUMN, label_column: str = LABEL_COLUMN
) -> list[tuple[str, str | None]]:
    """Each id once, in the order of the table, with its label; None where the label is empty.

    Spaces around a label are no part of it. Raises `RequestError` that names the line: for text in another encoding, a
    missing column, a row with more or fewer columns than the first, quotes that do not close, an empty id, and an id
    that has two different labels.
    """
    rows = _rows(_text(data), {id_column, label_column})
    at, header = next(rows, (1, []))
    id_place, label_place = (_place(name, header, at) for name in (id_column, label_column))
    found: dict[str, tuple[int, str | None]] = {}
    for line, row in rows:
        if len(row) != len(header):
            raise RequestError(f"line {line} has {counted(len(row), 'column')}; line {at} has {len(header)}")
        name, label = row[id_place], row[label_place].strip() or None
        if not name or "\0" in name:
            raise RequestError(f"line {line} has the {id_column} {name!r}, which no item has")
        before, earlier = found.setdefault(name, (line, label))
        if earlier != label:
            raise RequestError(f"line {line} gives {name!r} the label {label!r}; line {before} said {earlier!r}")
    return [(name, label) for name, (_, label) in found.items()]


def _text(data: bytes) -> str:
    encoding = "utf-16" if data.startswith(_UTF16) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = encoding.upper().removesuffix("-SIG")
        raise RequestError(f"line {line} is not {name}: save the table as {name}") from error


def _rows(text: str, wanted: set[str]) -> Iterator[Row]:
    """The rows in which something is written, of a table that is to have the `wanted` columns."""
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=_delimiter(text, wanted), skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise RequestError(f"line {line} can't be read as a row of a table: {error}") from error
        if any(row):
            yield line, row


def _delimiter(text: str, wanted: set[str]) -> str:
    """What separates the columns in the first line: at best so that the wanted ones are among them."""
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    try:
        sniffed = csv.Sniffer().sniff(first, _DELIMITERS).delimiter
    except csv.Error:  # a single column, at first sight
        sniffed = ","
    return next((one for one in (sniffed, *_DELIMITERS) if wanted <= _columns(first, one)), sniffed)


def _columns(line: str, delimiter: str) -> set[str]:
    try:
        return {*_names(next(csv.reader([line], delimiter=delimiter), []))}
    except csv.Error:
        return set()


def _names(header: list[str]) -> list[str]:
    return [one.strip() for one in header]


def _place(name: str, header: list[str], line: int) -> int:
    names = _names(header)
    if names.count(name) != 1:
        has = f"the columns {', '.join(map(repr, names))}" if names else "no columns"
        raise RequestError(f"line {line} has {has}; one of them must be {name!r}")
    return names.index(name)
