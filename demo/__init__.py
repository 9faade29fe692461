"""The embedded demo voice: a small corpus that a machine without any data can make for itself."""
