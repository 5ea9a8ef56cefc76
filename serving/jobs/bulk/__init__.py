"""Embeddings of very many images: `python -m serving.bulk`, and `read` for what it wrote."""

from serving.jobs.bulk.errors import BulkError
from serving.jobs.bulk.reader import Shard, read

__all__ = ["BulkError", "Shard", "read"]
