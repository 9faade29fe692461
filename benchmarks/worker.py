"""One system in a process of its own, driven line by line: a JSON order in, a JSON answer out. `peers` starts it.

Orders: {"do": "step", "bf16": bool, "shape": [B, T_mel, T_text]}, {"do": "get ready", "precision": "fp32", "texts": 1},
{"do": "speak", "frames": n}, {"do": "mel"}, {"do": "products", "clock": "seconds"}.
"""

import contextlib
import ctypes
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from systems import BUILDERS, REPOSITORY, Shape, Training, TrainingBatch

Answer = dict[str, Any]


def timed(work: Callable[[], object]) -> Answer:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


@contextlib.contextmanager
def timed_inside(owner: Any, method: str) -> Iterator[Answer]:
    """Adds up what calls of that method take."""
    original, spent = getattr(owner, method), {"seconds": 0.0, "cpu_seconds": 0.0}

    def timing(*args: Any, **kwargs: Any) -> Any:
        results: list[Any] = []
        for name, seconds in timed(lambda: results.append(original(*args, **kwargs))).items():
            spent[name] += seconds
        return results[0]

    setattr(owner, method, timing)
    yield spent
    delattr(owner, method)  # the class has its own


def forget_peak() -> None:
    """The kernel's record of the largest resident size starts anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_gib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 2**20
    return float("nan")


def products(clock: str) -> Answer:
    """Best rate of large matrix products, in operations a second of that clock: what a step could reach at most.

    By PyTorch's product, and in fp32 by oneDNN on a packed weight too, which is faster where MKL takes no AVX-512.
    """
    sys.path.insert(0, str(REPOSITORY))
    from kernels.matmul import can_pack, packed_product

    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        best = 0.0
        for m, k, n in ((12800, 1536, 4096), (2048, 2048, 2048)):
            left, right = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
            ways = [lambda a=left, b=right: a @ b.t()]
            if can_pack(dtype):
                packed = torch.ops.mkldnn._reorder_linear_weight(right, m)
                ways.append(lambda a=left, b=packed: packed_product(a, b))
            for multiply in ways:
                multiply()
                seconds = min(timed(multiply)[clock] for _ in range(3))
                best = max(best, 2.0 * m * k * n / seconds)
        rates[name] = best
    return rates


def mel_extractors() -> dict[str, Callable[[], object]]:
    """Six seconds of noise to log-mel through each extractor that can be imported here."""
    wav = torch.randn(6 * 22050, generator=torch.Generator().manual_seed(0)).mul_(0.1).clamp_(-1, 1)
    found: dict[str, Callable[[], object]] = {}
    with contextlib.suppress(ImportError):
        from audio.mel import mel_spectrogram
        from hparams import create_hparams

        hp = create_hparams()
        found["ours"] = lambda: mel_spectrogram(wav, hp)
    with contextlib.suppress(ImportError):
        import librosa

        options: Answer = {"n_fft": 1024, "hop_length": 256, "power": 1.0, "n_mels": 80, "fmax": 8000}
        spectrum = librosa.feature.melspectrogram
        found["librosa"] = lambda: np.log(np.maximum(spectrum(y=wav.numpy(), sr=22050, **options), 1e-5))
    with contextlib.suppress(ImportError):
        from torchaudio.transforms import MelSpectrogram

        transform = MelSpectrogram(22050, 1024, hop_length=256, n_mels=80, f_max=8000.0, power=1.0, norm="slaney")
        found["torchaudio (speechbrain's)"] = lambda: transform(wav).clamp_(min=1e-5).log_()
    return found


def mel_seconds() -> Answer:
    """Seconds for six seconds of sound, by extractor; the least of ten."""
    answers = {}
    for name, extract in mel_extractors().items():
        extract()
        answers[name] = min(timed(extract)["seconds"] for _ in range(10))
    return answers


class Worker:
    """Holds the model between orders; gives memory back after each, as all systems share one machine."""

    def __init__(self, name: str) -> None:
        self.training = Training(BUILDERS[name]())
        self.batches: dict[Shape, TrainingBatch] = {}

    def step(self, order: dict[str, Any]) -> Answer:
        shape = Shape(*order["shape"])
        batch = self.batches.setdefault(shape, TrainingBatch.of(shape))
        losses: list[torch.Tensor] = []
        forget_peak()
        answer = timed(lambda: losses.append(self.training.step(batch, bf16=order["bf16"])))
        answer |= {"peak_gib": peak_gib(), "loss": losses[0].item()}
        self.training.optimizer.zero_grad(set_to_none=True)
        ctypes.CDLL(None).malloc_trim(0)
        return answer

    def get_ready(self, order: dict[str, Any]) -> Answer:
        self.training.system.get_ready(order["precision"], order["texts"])
        return {"ready": order["precision"]}

    def speak(self, order: dict[str, Any]) -> Answer:
        """Seconds of everything, and of the decoder alone."""
        model = self.training.model.eval()
        frames: list[int] = []
        with torch.no_grad(), timed_inside(model.decoder, self.training.system.decode) as decoder:
            answer = timed(lambda: frames.append(self.training.system.speak(order["frames"])))
        model.train()
        assert frames == [order["frames"]], f"{frames} frames instead of {order['frames']}"
        return answer | {f"decoder_{name}": seconds for name, seconds in decoder.items()}


def main() -> None:
    name, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    replies = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # libraries print; the pipe is for answers
        worker = Worker(name) if name in BUILDERS else None
        precisions = worker.training.system.precisions() if worker else []
        print(json.dumps({"ready": torch.__version__, "precisions": precisions}), file=replies, flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            match order["do"]:
                case "products":
                    answer = products(order["clock"])
                case "mel":
                    answer = mel_seconds()
                case "step" if worker:
                    answer = worker.step(order)
                case "get ready" if worker:
                    answer = worker.get_ready(order)
                case "speak" if worker:
                    answer = worker.speak(order)
                case _:
                    raise ValueError(f"unknown order {line!r} for {name!r}")
            print(json.dumps(answer), file=replies, flush=True)


if __name__ == "__main__":
    main()
