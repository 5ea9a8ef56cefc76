"""Tables of labels as people's programs write them, and what is said of those that can't be read."""

import csv
import io

import pytest

from serving.protocol.labels import labels_from_csv
from serving.protocol.messages import RequestError

TABLE = [("cats/1.jpg", "cat"), ("a, b; c.jpg", "dog|cat"), ('say "x".jpg', "tab\tbed"), ("é.jpg", "café"), ("e", None)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_the_csv_module_writes_is_read(delimiter: str, ending: str, encoding: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ending)
    writer.writerows([("id", "label"), *TABLE])
    assert labels_from_csv(text.getvalue().encode(encoding)) == TABLE


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("id,label\n", []),
        ("id,label\na,cat", [("a", "cat")]),
        ("\n\nid,label\n\na,cat\n,\n\n", [("a", "cat")]),
        ("label,id,split\ncat,a,train\n", [("a", "cat")]),
        (" id , label \na, cat \n", [("a", "cat")]),
        ('id,label\n"two\nlines",cat\n', [("two\nlines", "cat")]),
        ("id,label\na,cat\nb,\na,cat\n", [("a", "cat"), ("b", None)]),
        ("id;label;note, or not\na;cat, dog;x\n", [("a", "cat, dog")]),
        ("id,label\na\u2028b,c\x0cd\n", [("a\u2028b", "c\x0cd")]),
    ],
)
def test_tables_in_other_shapes(text: str, found: list[tuple[str, str | None]]) -> None:
    assert labels_from_csv(text.encode()) == found


def test_columns_may_have_other_names() -> None:
    data = b"file name;class label\na;cat\n"
    assert labels_from_csv(data, id_column="file name", label_column="class label") == [("a", "cat")]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "line 1 has no columns; one of them must be 'id'"),
        (b"\n\nname,label\n", "line 3 has the columns 'name', 'label'; one of them must be 'id'"),
        (b"id\na\n", "line 1 has the columns 'id'; one of them must be 'label'"),
        (b"id,label,label\n", "one of them must be 'label'"),
        (b"id,label\na,cat\nb,cat, black\n", "line 3 has 3 columns; line 1 has 2"),
        (b"id,label\n\na\n", "line 3 has 1 column; line 1 has 2"),
        (b"id,label\na,cat\n,dog\n", "line 3 has the id '', which no item has"),
        (b"id,label\na,cat\n\nb,x\na,dog\n", "line 5 gives 'a' the label 'dog'; line 2 said 'cat'"),
        (b'id,label\na,cat\n"b,cat\nc,cat\n', "line 3 can't be read as a row of a table: unexpected end of data"),
        (b"id,label\na,cat\nb,caf\xe9\n", "line 3 is not UTF-8: save the table as UTF-8"),
        ("id,label\na,cat".encode("utf-16") + b"\n", "is not UTF-16"),
        (b"id,label\n" + b"x" * 200_000 + b",cat\n", "line 2 can't be read as a row of a table: field larger"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(data: bytes, said: str) -> None:
    with pytest.raises(RequestError) as failure:
        labels_from_csv(data)
    assert said in str(failure.value)
    assert failure.value.status == 400
