"""`simclr`, the one command: `main` has the table of all commands, `ask` those that ask a running server."""

__version__ = "0.1.0"
