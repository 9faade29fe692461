"""Programs that the front ends run as processes of their own, talking in lines of JSON.

Each of them loads what must not come into our process: GPL code (`espeak`), a model file that runs code when it is
loaded (`russian`), or packages that are slow to import (`english`, `numbers`). They end when their parent does.
"""
