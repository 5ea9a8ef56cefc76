import pytest

from serving.options import EngineOptions


@pytest.mark.parametrize(
    "options",
    [EngineOptions(), EngineOptions(form="int8", threads=3, cache_mb=64)],
)
def test_options_survive_the_way_through_the_environment(options: EngineOptions) -> None:
    assert EngineOptions.from_environment(options.to_environment()) == options


def test_an_empty_environment_is_the_default() -> None:
    assert EngineOptions.from_environment({"SIMCLR_FORM": ""}) == EngineOptions()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SIMCLR_THREADS", "two", "SIMCLR_THREADS is 'two'"),
        ("SIMCLR_THREADS", "-1", "threads is -1"),
        ("SIMCLR_FORM", "int4", "form is 'int4'; it must be one of auto, onnx, int8"),
        ("SIMCLR_CACHE_MB", "-5", "cache_mb is -5"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        EngineOptions.from_environment({name: value})
