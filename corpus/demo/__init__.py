"""The embedded demo corpus: sentences of our own, spoken once by espeak-ng in child processes, cached and reused."""
