"""What stops shared work and is no single image's fault."""


class WorkError(RuntimeError):
    """Work that can't be begun or go on; the message says why and what to do."""
