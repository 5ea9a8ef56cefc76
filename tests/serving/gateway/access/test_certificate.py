"""A certificate that is renewed while connections are taken, over real sockets."""

import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from serving.gateway.access.certificate import Certificate
from tests.serving.gateway.access.certificates import make


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return make(tmp_path, "first")


def shown(context: ssl.SSLContext) -> bytes:
    """The certificate that a client of a server with this context gets to see."""
    ours, theirs = socket.socketpair()
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE

    def answer() -> None:
        with context.wrap_socket(theirs, server_side=True) as wrapped:
            wrapped.recv(1)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with client.wrap_socket(ours) as wrapped:
            seen = wrapped.getpeercert(binary_form=True)
    finally:
        thread.join(timeout=30)
    assert seen is not None
    return seen


def der(chain: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(chain).read_text())


def test_a_renewed_certificate_is_shown_to_new_connections(files: tuple[str, str], tmp_path: Path) -> None:
    certificate = Certificate(*files)
    context = certificate.context
    before = der(files[0])
    assert shown(context) == before
    chain, key = make(tmp_path, "second")
    Path(chain).replace(files[0])
    certificate.refresh()  # the key is not there yet
    assert shown(context) == before
    Path(key).replace(files[1])
    certificate.refresh()
    assert shown(context) == der(files[0]) != before


def test_what_is_no_certificate_is_a_sentence(files: tuple[str, str], tmp_path: Path) -> None:
    chain, key = files
    other = make(tmp_path, "other")
    locked = tmp_path / "locked.key"
    words = ["openssl", "pkcs8", "-topk8", "-in", key, "-out", str(locked), "-passout", "pass:secret"]
    subprocess.run(words, check=True, capture_output=True)
    for pair in ((chain, other[1]), (chain, chain), (chain, str(tmp_path / "missing")), (chain, str(locked))):
        with pytest.raises(ValueError, match=r"can't be used with the key|must not be encrypted"):
            Certificate(*pair)
