"""A proxy in the environment that the client cannot use is an error that names it, and none on loopback."""

import pytest

from serving.client import Client, ServerError


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "nonsense://127.0.0.1:1080"])
def test_a_proxy_that_can_not_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ServerError, match=r"Unset ALL_PROXY.* or add images\.example to NO_PROXY") as refused:
        Client("http://images.example:8080")
    assert not refused.value.again
    Client("http://127.0.0.1:8080").close()
