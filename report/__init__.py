"""report.html of a run: read from the files of its directory, written beside training."""
