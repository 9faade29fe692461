"""All that watches a run, and never the network or the trainer: observers (`observer.py`, chosen in `setup.py`),
the terminal, pictures, TensorBoard, MLflow, Telegram, debug reports and report.html.
"""
