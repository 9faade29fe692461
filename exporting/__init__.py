"""Voices as files that travel: one safetensors file with a card, or an archive of ONNX graphs for machines without
torch; and mels for training vocoders elsewhere. Its entries are `files.export_safetensors` and `export_onnx`, which
export.py calls, and `python -m exporting`."""
