"""Filling a collection's embedding space with a release, outside of any server."""
