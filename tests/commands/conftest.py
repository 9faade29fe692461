"""Fixtures of all commands."""

from support.browser import browser
from support.commands import begun, cache, dataset, voice

__all__ = ["begun", "browser", "cache", "dataset", "voice"]
