"""The one error of bulk embedding that is no single image's."""

from serving.jobs.parallel.tasks import WorkError

RESUME = "finished shards are kept, and the same command goes on from there"


class BulkError(WorkError):
    """A job that can't be begun or go on; the message says why and what to do."""
