"""The error of the model store's commands."""


class StoreError(ValueError):
    """Something was refused and nothing was changed; the message says why."""
