"""Long work on many images, shared out among processes, GPUs, tasks and machines."""
