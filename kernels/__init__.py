"""Fast twins of the decoder's step loops; the modules in `model` define what they must compute."""
