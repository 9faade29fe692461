"""Several processes of one run; the door is multiproc.py: the process group and its collectives, the launcher,
signs of life.
"""
