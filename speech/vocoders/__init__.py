"""From mel to sound: `vocoder.load_vocoder` gives Griffin-Lim, or a HiFi-GAN or BigVGAN generator from its authors'
files; `onnx_export` writes a generator for players without torch, `hifigan_dataset` what HiFi-GAN is fine-tuned on."""
