"""Text in aligned columns, for a terminal."""

from collections.abc import Sequence


def columns(lines: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Lines of as many cells each, two spaces apart; the columns at `right` are set to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def cell(text: str, at: int) -> str:
        return text.rjust(widths[at]) if at in right else text.ljust(widths[at])

    return "\n".join("  ".join(cell(text, at) for at, text in enumerate(line)).rstrip() for line in lines)
