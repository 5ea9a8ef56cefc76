"""The whole service with keys and a certificate: it gets ready by itself, and answers whoever has a key."""

import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from serving.client import Client, ServerError
from serving.gateway.access.options import AccessOptions
from serving.torchserve.launch import Server
from serving.torchserve.settings import Settings
from tests.conftest import Chain
from tests.serving.gateway.access.certificates import make
from tests.serving.gateway.access.key_files import add


def _image() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "PNG")
    return file.getvalue()


IMAGE = _image()


def test_a_service_that_needs_keys(chain: Chain, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add(file, "a").decode()
    settings = Settings(chain.archive, port=0, form="onnx", workers=1, access=AccessOptions(keys=str(file)))
    with Server(settings) as server:
        with Client(server.url, api_key=key) as client:
            embedding = client.embed([IMAGE])
        with Client(server.url, api_key="") as stranger, pytest.raises(ServerError, match="a key is needed") as refused:
            stranger.embed([IMAGE])
    assert np.linalg.norm(embedding, axis=1) == pytest.approx([1.0], abs=1e-4)
    assert refused.value.status == 401


def test_a_service_by_https_on_every_address(chain: Chain, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add(file, "a").decode()
    chain_file, key_file = make(tmp_path, "here")
    access = AccessOptions(host="0.0.0.0", keys=str(file), tls_cert=chain_file, tls_key=key_file)
    with Server(Settings(chain.archive, port=0, form="onnx", workers=1, access=access)) as server:
        assert server.url.startswith("https://0.0.0.0:")
        with httpx.Client(base_url=server.url, verify=False, trust_env=False) as client:
            assert client.get("/v1/describe").status_code == 401
            assert client.get("/v1/describe", headers={"x-api-key": key}).status_code == 200


def test_a_service_for_others_does_not_start_without_keys(chain: Chain, tmp_path: Path) -> None:
    access = AccessOptions(host="0.0.0.0", keys=str(tmp_path / "keys.json"))
    with pytest.raises(ValueError, match="simclr keys add"):
        Server(Settings(chain.archive, port=0, workers=1, access=access)).start()
