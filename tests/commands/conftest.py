"""Fixtures of all commands."""

from support.browser import browser
from support.commands import cache, dataset

__all__ = ["browser", "cache", "dataset"]
