"""A collection: the catalogue, which is the truth, its vectors, and an index that is a cache of them.

Knows nothing of HTTP, TorchServe or encoders: embeddings come in as float32 of unit norm.
"""
