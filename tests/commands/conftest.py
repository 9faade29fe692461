"""Fixtures of all commands."""

from support.commands import cache, dataset

__all__ = ["cache", "dataset"]
