import re
from typing import Any

import pytest

from serving.collection.catalogue.items import Item, Source, encode_item
from serving.collection.errors import ItemError
from tests.serving.collection.examples import item


def test_a_source_tells_its_digest_and_size_whether_kept_or_not() -> None:
    kept, elsewhere = Source.kept(b"picture", "image/png"), Source.at("/a/b.zip!c.png", b"picture")
    assert kept.sha256 == elsewhere.sha256
    assert kept.size == elsewhere.size == 7
    assert (kept.content, kept.path) == (b"picture", None)
    assert (elsewhere.content, elsewhere.path) == (None, "/a/b.zip!c.png")


@pytest.mark.parametrize(
    "name", ["a", "train/0/001.png", "Ünïcode 🐈", "'; DROP TABLE items; --", "x" * 512, "é" * 256]
)
def test_ids_are_any_text(name: str) -> None:
    assert encode_item(item(name, b"x")) == "{}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "an id is empty"),
        ("a\nb", r"an id is 'a\\nb'; control characters are not accepted"),
        ("a\x7f", "control characters"),
        ("x" * 513, "takes 513 bytes; at most 512"),
        ("é" * 257, "takes 514 bytes"),
        ("a\ud800", "not valid UTF-8"),
        (7, "an id is 7; it must be text"),
    ],
)
def test_a_bad_id_is_named(name: Any, said: str) -> None:
    with pytest.raises(ItemError, match=said):
        encode_item(item(name, b"x"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Item("a", Source.kept(b"x"), label=""), "the label of item 'a' is empty"),
        (Item("a", Source.kept(b"x", "image/\0png")), "the media_type of item 'a' is"),
        (Item("a", Source.at("", b"x")), "the path of item 'a' is empty"),
        (Item("a", Source(b"1" * 32, 1)), "needs the bytes of its source or its path, and not both"),
        (Item("a", Source(b"1" * 32, 1, b"x", "/x")), "and not both"),
        (Item("a", Source(b"12", 1, b"x")), "the sha256 of item 'a' has 2 bytes, not 32"),
        (item("a", colour={"x": object()}), "item 'a': metadata.colour.x is <object"),
    ],
)
def test_what_cannot_be_stored_is_named(wrong: Item, said: str) -> None:
    with pytest.raises(ItemError, match=re.escape(said)):
        encode_item(wrong)
