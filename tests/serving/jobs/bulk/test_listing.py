"""The listing: what is in it, in which order, and that its length is no matter."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from core.images.folders import SourceError
from serving.jobs.bulk.listing import LINES, OFFSETS, Entry, Listing, write_listing
from serving.jobs.bulk.sources import named


def listing_of(folder: Path, *paths: Path, listed: Path | None = None) -> Listing:
    folder.mkdir()
    write_listing(folder, named([str(path) for path in paths], str(listed) if listed is not None else None))
    return Listing(folder)


def test_rows_are_read_from_anywhere(images: Path, tmp_path: Path) -> None:
    listing = listing_of(tmp_path / "out", images, images / "a/01.png")
    names = [json.loads(line) for line in (tmp_path / "out" / LINES).read_text().splitlines()]
    assert len(listing) == len(names) == 91
    assert listing.rows(range(0, 91)) == [Entry(*name) for name in names]
    assert listing.rows(range(89, 91)) == [Entry(0, "b/c/29.png"), Entry(1, "01.png")]
    assert listing.rows(range(5, 5)) == []


def test_the_same_images_are_the_same_bytes(images: Path, tmp_path: Path) -> None:
    for out in ("one", "two"):
        listing_of(tmp_path / out, images)
    for name in (LINES, OFFSETS):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("count", [1, 4095, 4096, 4097])
def test_offsets_are_whole_at_any_length(tmp_path: Path, count: int) -> None:
    (tmp_path / "list").write_text("".join(f"{number}.png\n" for number in range(count)))
    listing = listing_of(tmp_path / "out", listed=tmp_path / "list")
    offsets = np.load(tmp_path / "out" / OFFSETS)
    assert (offsets.dtype, offsets.shape) == (np.int64, (count + 1,))
    assert offsets[-1] == (tmp_path / "out" / LINES).stat().st_size
    assert listing.rows(range(count - 1, count)) == [Entry(0, f"{count - 1}.png")]


def test_names_of_any_kind_come_back(tmp_path: Path) -> None:
    names = ['quo"te.png', "tab\t.png", "ünï.png", "carriage\rreturn.png", "odd\udcff.png"]
    (tmp_path / "list").write_text("\n".join(names), encoding="utf-8", errors="surrogateescape", newline="")
    listing = listing_of(tmp_path / "out", listed=tmp_path / "list")
    assert [entry.name for entry in listing.rows(range(len(listing)))] == names


def test_nothing_to_list_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"empty: no image files; accepted suffixes: \.avif"):
        listing_of(tmp_path / "out", tmp_path / "empty")
    assert not list((tmp_path / "out").iterdir())


def test_memory_does_not_grow_with_a_list(tmp_path: Path) -> None:
    with open(tmp_path / "list", "w") as file:
        file.writelines(f"/photographs/of/some/length/{number:07d}.jpg\n" for number in range(50_000))
    tracemalloc.start()
    try:
        listing = listing_of(tmp_path / "out", listed=tmp_path / "list")
        listing.rows(range(30_000, 34_096))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(listing) == 50_000
    assert peak < 3 << 20  # the lines alone are 2.5 MiB of text, and twice that as strings
