"""Many images into a collection, without a server (the command `serving.jobs.ingest`) or through one."""
