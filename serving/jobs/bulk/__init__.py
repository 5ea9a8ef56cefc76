"""Embeddings of very many images without a server, in shards; `serving.jobs.bulk.reader.read` reads them."""
