"""Peak memory and time of one training step of the decoder, by option: `python benchmarks/decoder_memory.py`.

Each setting runs in a process of its own, as a process never gives its peak back. Peak is what the step adds to the
resident memory after the model is built. The text is long, for there attention's activations are the largest.

    python benchmarks/decoder_memory.py --preset demo --bf16 -B 16 --frames 200 --setting decoder_backend=auto
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SETTINGS = (
    "decoder_backend=fast",
    "decoder_backend=plain",
    "decoder_backend=plain,use_memory_efficient_attention=True",
    "decoder_backend=plain,use_memory_efficient_attention=True,attention_chunk_size=1",
    "decoder_backend=plain,use_memory_efficient_attention=True,attention_chunk_size=100",
    "decoder_backend=plain,p_teacher_forcing=0.5",
    "decoder_backend=plain,use_memory_efficient_attention=True,p_teacher_forcing=0.5",
    "use_forward_attention=True",
    "use_forward_attention=True,use_memory_efficient_attention=True",
    "use_attention_smoothing=True",
    "use_location_sensitive_attention=False",
    "n_frames_per_step=3",
    "reduction_schedule=[0:3]",
)
WIDTHS = "attention_rnn_dim=128,decoder_rnn_dim=128,encoder_embedding_dim=128,symbols_embedding_dim=128,prenet_dim=64"
MEBIBYTE = 1 << 20


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def measure(
    setting: str, *, preset: str | None, is_bf16: bool, B: int, T_mel: int, T_text: int, repeats: int
) -> tuple[int, float]:
    """-> bytes that the first step adds, and the seconds of the fastest step."""
    import torch

    from hparams import resolve_hparams
    from model import Tacotron2
    from training.schedules import teacher_forcing_ratio

    torch.set_num_threads(1)
    torch.manual_seed(0)
    hp = resolve_hparams(preset=preset, overrides=setting).hparams
    model = Tacotron2(hp).train()
    text_lengths, memory = torch.full((B,), T_text), torch.randn(B, T_text, hp.encoder_embedding_dim)
    mel, p_teacher = torch.randn(B, 80, T_mel), teacher_forcing_ratio(1, hp)

    def step(n_frames: int) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            outputs = model.decoder(memory, mel[:, :, :n_frames], text_lengths, p_teacher=p_teacher)
        torch.stack([o.square().mean() for o in outputs]).sum().backward()

    step(12)  # libraries load, gradients take their place
    before, times = peak_bytes(), []
    for _ in range(repeats):
        began = time.perf_counter()
        step(T_mel)
        times.append(time.perf_counter() - began)
    return peak_bytes() - before, min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting")
    parser.add_argument("-B", type=int, default=4)
    parser.add_argument("--frames", type=int, default=480)
    parser.add_argument("--symbols", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="the default widths instead of small ones")
    parser.add_argument("--preset", help="the widths and settings of a preset instead")
    parser.add_argument("--bf16", action="store_true", help="products in bf16")
    args = parser.parse_args()
    if args.setting is None:
        for setting in SETTINGS:
            subprocess.run([sys.executable, __file__, "--setting", setting, *sys.argv[1:]], check=True)
        return
    widths = "" if args.full or args.preset else f"{WIDTHS},"
    shape = {"B": args.B, "T_mel": args.frames, "T_text": args.symbols, "repeats": args.repeats}
    added, seconds = measure(widths + args.setting, preset=args.preset, is_bf16=args.bf16, **shape)
    print(f"{args.setting:62} {added / MEBIBYTE:7.0f} MiB {seconds:7.2f} s", flush=True)


if __name__ == "__main__":
    main()
