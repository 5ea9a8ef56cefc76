"""Looking after a model store: list, compare, verify, promote, roll back and remove releases."""
