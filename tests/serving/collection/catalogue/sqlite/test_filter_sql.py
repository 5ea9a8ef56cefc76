from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.catalogue.filters import keys_of
from serving.collection.catalogue.sqlite.filter_sql import compile_filter


def test_text_of_a_filter_is_never_sql() -> None:
    hostile = "x') OR 1=1; DROP TABLE items; --"
    condition = parse_filter({hostile: hostile, "or": [{"label": hostile}, {hostile: {"exists": True}}]})
    text, parameters = compile_filter(condition)
    assert "DROP" not in text
    assert parameters.count(hostile) == 4
    assert list(keys_of(condition)) == [hostile, "label", hostile]
