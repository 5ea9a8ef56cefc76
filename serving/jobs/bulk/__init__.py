"""Embeddings of very many images: `python -m serving.bulk`, and `read` for what it wrote."""

from serving.bulk.errors import BulkError
from serving.bulk.reader import Shard, read

__all__ = ["BulkError", "Shard", "read"]
