"""What embeddings tell without labels: the signals of training, and whether an image finds its own augmented copy.

Of two random views of each image, each view asks for its nearest among all the other views.
"""

import numpy as np
from numpy.typing import NDArray

from export.comparison.contender import ComparedEmbeddings
from export.comparison.sample import Sample
from training.measures.label_free import label_free_signals


def signals_of(embedded: ComparedEmbeddings, sample: Sample) -> dict[str, float]:
    """ "alignment", "uniformity", "spread", "rankme", and "agreement", the share of views that find their copy."""
    first, second = embedded.views
    return {
        "alignment": float(np.square(first - second).sum(axis=1).mean()),
        **label_free_signals(embedded.queries.embedding[sample.signals]),
        "agreement": float(agreement(embedded.views).mean()),
    }


def agreement(views: NDArray[np.float32]) -> NDArray[np.float64]:
    """For each image (M,) the share of its two views, (2, M, D), whose nearest of all other views is the other one."""
    count = views.shape[1]
    every = views.reshape(2 * count, -1)
    scores = every @ every.T
    np.fill_diagonal(scores, -np.inf)
    own = np.concatenate([np.arange(count) + count, np.arange(count)])
    found: NDArray[np.float64] = (scores.argmax(axis=1) == own).reshape(2, count).mean(axis=0)
    return found
