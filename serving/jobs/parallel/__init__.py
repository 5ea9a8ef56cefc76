"""Long work on many images shared out among processes, GPUs, tasks and machines: bulk embedding and re-embedding."""
