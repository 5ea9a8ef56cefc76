"""What the service does with a collection, operation by operation; no HTTP in it."""
