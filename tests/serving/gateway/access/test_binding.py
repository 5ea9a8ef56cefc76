"""Where a gateway may listen."""

import argparse

import pytest

from serving.gateway.access.binding import check_binding
from serving.gateway.access.hosts import is_loopback
from serving.gateway.access.options import access_of, add_access

LOOPBACK = ("127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST", "::1", "[::1]", "::ffff:127.0.0.1")
BEYOND = ("0.0.0.0", "::", "", "192.168.1.5", "::ffff:10.0.0.1", "images.example.org", "localhost.example.org", "127.1")


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_needs_nothing(host: str) -> None:
    assert is_loopback(host)
    check_binding(host, keys=0, tls=False, behind_proxy=False)


@pytest.mark.parametrize("host", BEYOND)
def test_beyond_it_keys_and_encryption_are_needed(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ValueError, match="simclr keys add NAME"):
        check_binding(host, keys=0, tls=True, behind_proxy=True)
    with pytest.raises(ValueError, match="--tls-cert and --tls-key, or --behind-proxy"):
        check_binding(host, keys=1, tls=False, behind_proxy=False)
    check_binding(host, keys=1, tls=True, behind_proxy=False)
    check_binding(host, keys=1, tls=False, behind_proxy=True)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_access(made)
    return made


def test_options_become_values() -> None:
    words = "--host ::1 --tls-cert c --tls-key k --allow-host A.example.org --allow-host b --allow-origin HTTPS://x:1"
    options = access_of(parser().parse_args(words.split()))
    assert (options.host, options.tls, options.behind_proxy) == ("::1", True, False)
    assert options.allowed_hosts == ("a.example.org", "b")
    assert options.allowed_origins == ("https://x:1",)


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ValueError, match="--tls-cert and --tls-key need each other"):
        access_of(parser().parse_args(["--tls-cert", "c"]))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--allow-host", text) for text in ("", "a:80", "http://a", "a/b", "a b", "*@x")),
        *(
            ("--allow-origin", text)
            for text in ("", "a", "null", "https://a/", "https://*.a", "ftp://a", "https://u@a")
        ),
    ],
)
def test_hosts_and_origins_are_refused_as_typed(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args([option, value])
    assert f"is {value!r}; it must be" in capsys.readouterr().err
