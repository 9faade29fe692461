"""Recordings and texts: what they hold, what is wrong with them, and how they become lists and batches."""
