"""Using a voice: `voice.py` loads and synthesizes, `decoding.py` decodes fixed texts freely, `metrics.py` and
`evaluation.py` judge what comes out.
"""
