"""What has no subject of its own: errors, files, logging, signals, translations. Imports nothing else of the
project. Begin with `errors.py` and `files.py`.
"""

import os

# onnxruntime (recognizer, DNSMOS, ONNX voices, the demo's teacher) reports its use to Microsoft, since 1.29 also on
# Linux, unless this is set before it is loaded. Every module of this project comes through here.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
