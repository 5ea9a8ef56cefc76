"""Many images into a collection, without a server (the command `serving.ingest`) or through one."""
