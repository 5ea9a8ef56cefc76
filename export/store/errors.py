"""What the model store's commands refuse to do."""


class StoreError(ValueError):
    """Nothing was changed, and why."""
