"""Batch retraining: from what a collection has gathered to a release that serves, if it is better.

The stages are the project's own commands, each in a process of its own, so this package knows no more of them than
their arguments and what they leave behind.
"""
