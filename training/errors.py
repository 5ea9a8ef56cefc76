"""Why a training ended that the user can do something about."""


class NonFiniteLoss(RuntimeError):
    """Training diverged; the message says where, and what to try."""


class PeerError(RuntimeError):
    """Another process of the same training failed; it says itself why, if it can."""
