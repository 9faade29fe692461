"""What a person sees of a search: the live table of its trials, and its results as files."""
