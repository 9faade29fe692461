"""The embedded demo corpus: sentences of our own, spoken once by a synthetic voice in child processes, cached
and reused."""
