"""What stops bulk embedding as a whole; an image that can't be read does not."""

from serving.jobs.parallel.tasks import WorkError

RESUME = "finished shards are kept, and the same command goes on from there"


class BulkError(WorkError):
    """The job can't begin or go on; the message says why and what to do."""
