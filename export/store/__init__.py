"""The model store's commands: list, compare, verify, promote, roll back and remove releases."""
