"""The benchmark of small maps: its command."""

from tests.benchmarks.conftest import last_line, run


def test_the_command_measures_both_ways() -> None:
    few = ("--architectures", "resnet18", "--sizes", "16", "--views", "8", "--repeat", "1")
    done = run("benchmarks.training.small_maps", *few)
    rates = last_line(done)["views_per_s"]["resnet18"]["16"]
    assert set(rates) == {"plain", "small_maps"}
    assert min(rates.values()) > 0
    assert "resnet18" in done.stdout.splitlines()[1]
