"""The `nn.Module`s that model.py is made of beside its own layers: the decoder's loops by definition
(`decoder_loops.py`), stopping, style tokens, speakers, the MMI recogniser.
"""
