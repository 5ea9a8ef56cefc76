"""How every command is described, parsed and ended; the commands themselves lie in their rooms."""
