"""What tests of export begin with."""

import pytest

from export.formats.graph import ServingGraph
from tests.conftest import Chain
from training.measures.probe import load_probe
from training.run.checkpoint import load_encoder


@pytest.fixture(scope="module")
def graph(chain: Chain) -> ServingGraph:
    """The chain's encoder and probe as eager torch."""
    encoder, _, mean, std, _ = load_encoder(chain.ingredients.checkpoint)
    assert chain.ingredients.probe is not None
    return ServingGraph(encoder, mean=mean, std=std, probe=load_probe(chain.ingredients.probe))
