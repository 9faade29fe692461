"""The verbs of prepare_data.py: each takes the parsed arguments and a shell to speak through, and gives an exit
code."""
