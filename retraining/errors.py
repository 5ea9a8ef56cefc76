"""Why a retraining ends without a promotion."""

from typing import Any


class PlanError(ValueError):
    """A retraining that makes no sense as it was asked for, or can't go on as it was begun."""


class Busy(PlanError):
    """Another retraining is at work."""


class StageFailed(RuntimeError):
    """A stage's command ended with an error, which it has printed itself."""


class NotPromoted(Exception):
    """The retraining came to its end and the champion of before goes on serving; `summary` is set at the end."""

    summary: dict[str, Any]


class NotBetter(NotPromoted):
    """The gates refused the new release."""


class NotFollowed(NotPromoted):
    """A server could not take the new release; it goes on with the one before."""
