"""Voices as files that travel: one safetensors file with a card, or an archive of ONNX graphs for machines without
torch. Its entries are `exporting.files.export_safetensors` and `export_onnx`, which export.py calls."""
