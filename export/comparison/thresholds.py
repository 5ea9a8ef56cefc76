"""The thresholds of promotion: what a challenger may lose and still take the champion's place.

All of them are here, each with its reason.
"""

from dataclasses import dataclass

from training.run.monitor import RANKME_LEAST, SPREAD_LEAST


@dataclass(frozen=True)
class Thresholds:
    """Accuracies in points of 100, shares and ratios as plain numbers, times in milliseconds."""

    confidence: float = 0.95
    """Of the interval around a difference: each gate refuses one in forty equal challengers by chance."""

    resamples: int = 10_000
    """Of the bootstrap: the interval's ends then move by about a hundredth of its width from seed to seed."""

    points_lost_most: float = 2.0
    """A loss that users notice is refused even if the interval does not settle that it is real."""

    images_lost_few: int = 5
    """A loss of so few images is chance whatever its share: of 60 test images, one is already 1.7 points."""

    spread_least: float = SPREAD_LEAST
    """Below it all images get nearly the same embedding, as training warns of: nothing can be searched."""

    rankme_least: float = RANKME_LEAST
    """Fewer dimensions in use than this is a dimensional collapse, as training warns of."""

    rankme_share_least: float = 0.5
    """Of the champion's RankMe, used without labels: accuracy follows RankMe (Garrido et al. 2023), but loosely, so
    only a loss far beyond what retraining the same recipe gives is refused."""

    time_ratio_most: float = 1.25
    """Of the champion's time: a server planned for the champion still has a quarter in reserve."""

    milliseconds_more: float = 1.0
    """A smaller difference is the machine's, not the release's; this matters for encoders of a few milliseconds."""

    bytes_ratio_most: float = 1.25
    """Of the served file: each worker holds it in memory, and while a server rolls over, those of both releases."""

    def points_lost(self, count: int) -> float:
        """The points that may be lost on `count` images before the loss alone refuses."""
        return max(self.points_lost_most, 100 * self.images_lost_few / count)


THRESHOLDS = Thresholds()
