"""A collection: the catalogue (SQLite, the truth), the vectors, and the FAISS index that is a cache of them.

Knows nothing of HTTP, TorchServe or encoders: embeddings come in as float32 of unit norm.
"""
