"""Plays voices that export.py wrote as ONNX, with numpy and onnxruntime and without torch. It owns the reading of the
archive, the decoder's loop and a Griffin-Lim in numpy; its entry is `player.voice.OnnxVoice`, or `python -m player`."""
