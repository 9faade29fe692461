"""What `gpu.py` measures, stage by stage. Each adds its results to the report as soon as it has them."""

import contextlib
import io
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from gpu_report import Report, in_short
from systems import BUILDERS, Ours, Shape, System, Training, TrainingBatch, loss_of, training_flops
from torch import Tensor

from corpus.batch import Batch
from hparams import create_hparams
from kernels import chunked_steps
from kernels.host_sync import HostSyncError
from kernels.inference import TorchWeights
from model import DecodeLimits, Tacotron2
from recovery.ladder import StepLimits
from text.front_end import FrontEnd
from training.train_step import TrainStep

NO_DROPOUT = "dropout_rate=0,encoder_dropout_rate=0,postnet_dropout_rate=0,p_attention_dropout=0,p_decoder_dropout=0"
WITH_GRAPHS = "ours"  # decoder_backend=auto
CONTENDERS = (
    ("tacotron2-model", False), ("tacotron2-model", True), ("ours, plain", True), ("ours, PyTorch alone", True),
    (WITH_GRAPHS, False), (WITH_GRAPHS, True),
)  # fmt: skip
WAITED_FOR = {
    "losses of Tacotron 2": "",
    "MMI": "use_mmi=True",
    "double decoder consistency": "use_ddc_loss=True",
    "style": "use_gst=True",
    "all of them, r = 2": "use_mmi=True,use_ddc_loss=True,use_gst=True,n_frames_per_step=2",
}
TERA, GIB = 1e12, 2**30


@dataclass(frozen=True)
class Setup:
    """How large everything is."""

    device: torch.device
    report: Report
    product_size: int = 8192
    checked: tuple[Shape, ...] = (Shape(4, 60, 40), Shape(16, 200, 80))
    batch_sizes: tuple[int, ...] = (32, 64, 128)
    T_mel: int = 800
    T_text: int = 160
    rounds: int = 5
    spoken: tuple[int, ...] = (1, 8, 32)
    frames: int = 800
    shortened: int = 200  # frames of a warm-up, and of all steps where a system is slow

    @classmethod
    def quick(cls, device: torch.device, report: Report) -> "Setup":
        """Everything once and small, to see that it works."""
        return cls(
            device, report, product_size=256, checked=(Shape(2, 12, 9),), batch_sizes=(2,), T_mel=12, T_text=9,
            rounds=1, spoken=(1, 2), frames=8, shortened=6,
        )  # fmt: skip

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began


def ceilings(setup: Setup) -> None:
    """What the device reaches at most: copies, and products in each precision."""
    device, n = setup.device, setup.product_size
    source = torch.empty(n * n * 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    best = min(setup.seconds(lambda: target.copy_(source)) for _ in range(5))
    rate = 2.0 * source.numel() * source.element_size() / best
    setup.report.add("ceilings", f"copy {rate / TERA:.2f} TB/s", copy=rate)
    for name, dtype, precision in (
        ("bf16", torch.bfloat16, "highest"), ("tf32", torch.float32, "high"), ("fp32", torch.float32, "highest"),
    ):  # fmt: skip
        torch.set_float32_matmul_precision(precision)
        left, right = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        best = min(setup.seconds(lambda: left @ right) for _ in range(5))  # noqa: B023 - called at once
        rate = 2.0 * n**3 / best
        setup.report.add("ceilings", f"product in {name} {rate / TERA:.1f} TFLOP/s", **{name: rate})


def use_precision(name: str) -> None:
    """Of fp32 products: "highest", or "high" for TF32. Recordings keep that of their making, so new ones are made."""
    torch.set_float32_matmul_precision(name)
    torch.backends.cudnn.allow_tf32 = name == "high"  # else convolutions differ by 1e-3 in "highest", right or wrong
    chunked_steps.chunk_for.cache_clear()


# ---- right?


def correctness(setup: Setup) -> None:
    """Loss and gradients beside the definition in double precision, without dropout."""
    use_precision("highest")
    for shape in setup.checked:
        torch.manual_seed(0)
        exact = Ours(f"decoder_backend=plain,{NO_DROPOUT}")
        exact.model.double().to(setup.device).train()
        batch = TrainingBatch.of(shape).to(setup.device)
        loss, grads = gradients(exact, replace(batch, mel=batch.mel.double(), gate=batch.gate.double()), bf16=False)
        for backend, bf16 in (("auto", False), ("fast", False), ("auto", True), ("plain", True)):
            system = Ours(f"decoder_backend={backend},{NO_DROPOUT}")
            system.model.load_state_dict(exact.model.state_dict())
            system.model.to(setup.device).train()
            found, theirs = gradients(system, batch, bf16=bf16)
            again, repeated = gradients(system, batch, bf16=bf16)
            values = {
                "loss_error": float((found - loss).abs() / loss),
                "gradient_error": relative_error(theirs.values(), [grads[name] for name in theirs]),
                "is_repeatable": torch.equal(found, again) and all(torch.equal(theirs[n], repeated[n]) for n in theirs),
            }
            worst, name = max((relative_error([theirs[name]], [grads[name]]), name) for name in theirs)
            text = (
                f"B={shape.B} T={shape.T_mel} {backend} {'bf16' if bf16 else 'fp32'}: loss {values['loss_error']:.1e}, "
                f"gradient {values['gradient_error']:.1e}, worst {worst:.1e} ({name}), "
                f"{'same' if values['is_repeatable'] else 'OTHER'} bits again"
            )
            setup.report.add("correctness", text, backend=backend, bf16=bf16, worst=worst, worst_name=name, **values)


def gradients(system: System, batch: TrainingBatch, *, bf16: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss [], and by name the gradients [...] that are not zero by definition, as before a normalisation."""
    system.model.zero_grad(set_to_none=True)
    loss = loss_of(system, batch, bf16=bf16)
    loss.backward()
    named = {name: p.grad.clone() for name, p in system.model.named_parameters() if not name.endswith(".0.conv.bias")}
    return loss.detach(), named


def relative_error(found: Iterable[Tensor], expected: Iterable[Tensor]) -> float:
    """Length of the difference of all tensors [...] over that of what is expected."""
    pairs = list(zip(found, expected, strict=True))
    difference = sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
    return (difference / sum(float(b.double().square().sum()) for _, b in pairs)) ** 0.5


# ---- fast?


@dataclass
class Contender:
    """One system in one precision on one batch."""

    name: str
    bf16: bool
    training: Training
    shape: Shape
    peak_bytes: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def label(self) -> str:
        return f"{self.name}, {'bf16' if self.bf16 else 'fp32'}"


def steps(setup: Setup) -> None:
    """Training steps of all systems in turns; fp32 with products in TF32."""
    use_precision("high")
    trainings: dict[str, Training] = {}
    for name in dict.fromkeys(name for name, _ in CONTENDERS):
        with told_if_it_fails(setup, name):
            torch.manual_seed(0)
            trainings[name] = Training(BUILDERS[name](), setup.device)
    for B in setup.batch_sizes:
        rows = []
        for name, bf16 in CONTENDERS:
            if name in trainings:
                row = Contender(name, bf16, trainings[name], Shape(B, setup.T_mel, setup.T_text))
                with told_if_it_fails(setup, f"B={B} {row.label}"):
                    rows.append(warmed_up(setup, row))
        try:
            take_turns(setup, rows)
        finally:  # also when time is over
            for row in rows:
                if row.seconds:
                    tell_step(setup, row)
    tell_recordings(setup)


def take_turns(setup: Setup, rows: list[Contender]) -> None:
    for _ in range(setup.rounds):
        for row in rows:
            batch = TrainingBatch.of(row.shape).to(setup.device)
            row.seconds.append(setup.seconds(lambda: row.training.step(batch, bf16=row.bf16)))  # noqa: B023


@contextlib.contextmanager
def told_if_it_fails(setup: Setup, what: str) -> Iterator[None]:
    """Lacks a package or memory: the others are measured without it."""
    try:
        yield
    except (ImportError, RuntimeError) as error:
        setup.report.add("steps", f"{what}: not measured: {in_short(error)}")


def warmed_up(setup: Setup, row: Contender) -> Contender:
    """After two short steps and a whole one, of which the peak is taken. Slow systems do short steps only."""
    short = replace(row.shape, T_mel=min(setup.shortened, setup.T_mel))
    batch = TrainingBatch.of(short).to(setup.device)
    took = [setup.seconds(lambda: row.training.step(batch, bf16=row.bf16)) for _ in range(2)]
    if took[-1] * row.shape.T_mel / short.T_mel > 2.0:
        row.shape = short
    row.training.optimizer.zero_grad(set_to_none=True)
    held = memory_bytes(setup.device)
    batch = TrainingBatch.of(row.shape).to(setup.device)
    row.training.step(batch, bf16=row.bf16)
    row.peak_bytes = peak_bytes(setup.device) - held + own_bytes(row.training)
    return row


def memory_bytes(device: torch.device) -> int:
    """Allocated now; a new peak begins here. 0 on a CPU."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def own_bytes(training: Training) -> int:
    """Weights, and Adam's two moments of each."""
    return 3 * sum(p.numel() * p.element_size() for p in training.model.parameters())


def tell_recordings(setup: Setup) -> None:
    """What stays allocated between steps, for all shapes together; the peaks of single steps do not contain it."""
    buffers = sum(b.numel() * b.element_size() for b in chunked_steps.fixed_buffers.values())
    segments = torch.cuda.memory_snapshot() if setup.device.type == "cuda" else []
    pool = sum(s["total_size"] for s in segments if tuple(s.get("segment_pool_id", (0, 0))) != (0, 0))
    text = f"recordings of all shapes: fixed buffers {buffers / GIB:.2f} GiB, memory of graphs {pool / GIB:.2f} GiB"
    setup.report.add("steps", text, buffers=buffers, pool=pool)


def tell_step(setup: Setup, row: Contender) -> None:
    seconds, shape = statistics.median(row.seconds), row.shape
    frames = float(torch.linspace(shape.T_mel, shape.T_mel // 2, shape.B).long().sum())
    rates = {name: rate for found in setup.report.found("ceilings") for name, rate in found.items()}
    ceiling = rates.get("bf16" if row.bf16 else "tf32")
    share = training_flops(shape) / seconds / ceiling if ceiling else float("nan")
    text = (
        f"B={shape.B} T={shape.T_mel} {row.label}: {1e3 * seconds:.0f} ms (least {1e3 * min(row.seconds):.0f}), "
        f"{frames / seconds / 1e3:.1f} k frames/s, {share:.1%} of the ceiling, peak {row.peak_bytes / GIB:.2f} GiB"
    )
    setup.report.add(
        "steps", text, label=row.label, B=shape.B, T=shape.T_mel, seconds=seconds, frames_per_s=frames / seconds,
        share=share, peak_gib=row.peak_bytes / GIB,
    )  # fmt: skip


def profile(setup: Setup) -> None:
    """What the device does in a step of ours in bf16."""
    B = setup.batch_sizes[min(1, len(setup.batch_sizes) - 1)]
    training = Training(BUILDERS[WITH_GRAPHS](), setup.device)
    batch = TrainingBatch.of(Shape(B, setup.T_mel, setup.T_text)).to(setup.device)
    for _ in range(2):
        training.step(batch, bf16=True)
    is_gpu = setup.device.type == "cuda"
    kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * is_gpu
    with torch.profiler.profile(activities=kinds) as profiled:
        wall = setup.seconds(lambda: training.step(batch, bf16=True))
    key = "self_device_time_total" if is_gpu else "self_cpu_time_total"
    found = sorted(profiled.key_averages(), key=lambda each: getattr(each, key), reverse=True)
    total = sum(getattr(each, key) for each in found) / 1e6
    setup.report.add("profile", f"B={B}: busy {total / wall:.0%} of {1e3 * wall:.0f} ms", busy=total / wall, wall=wall)
    for each in found[:7]:
        ms, n = getattr(each, key) / 1e3, each.count
        setup.report.add("profile", f"{ms:8.2f} ms {n:6} x {each.key[:90]}", name=each.key, ms=ms, n=n)


# ---- speech


BACKENDS: tuple[Literal["auto", "fast", "plain"], ...] = ("auto", "fast", "plain")


def speech(setup: Setup) -> None:
    """Microseconds a step of free-running speech, texts of 100 symbols; recordings were made before."""
    use_precision("high")
    torch.manual_seed(0)
    model = Tacotron2(create_hparams()).to(setup.device).eval()
    with torch.no_grad():
        for B in setup.spoken:
            found: dict[str, float] = {}
            for backend in BACKENDS:
                model.decoder.backend = backend
                model.decoder.prepared = TorchWeights(model.decoder, n_rows=B, is_persistent=True)
                speak(setup, model, B, frames=min(64, setup.frames))
                seconds = setup.seconds(lambda: speak(setup, model, B, frames=setup.frames))  # noqa: B023
                found[backend] = 1e6 * seconds / setup.frames
            tell_speech(setup, B, found)
        with told_if_it_fails(setup, "speech of tacotron2-model"):
            other = BUILDERS["tacotron2-model"]().model.to(setup.device).eval()
            other.decoder.gate_threshold, other.decoder.max_decoder_steps = 2.0, setup.frames
            with contextlib.redirect_stdout(io.StringIO()):  # it prints that it was cut
                seconds = setup.seconds(lambda: other.inference(hundred_symbols(1, setup.device)[0]))
            tell_speech(setup, 1, {"tacotron2-model": 1e6 * seconds / setup.frames})


def tell_speech(setup: Setup, B: int, us: dict[str, float]) -> None:
    """A step is a frame of each of B texts, 256 samples at 22050 Hz."""
    fastest = min(us.values())
    text = ", ".join(f"{name} {value:.0f}" for name, value in us.items())
    real_time = B * 256 / 22050 / (fastest / 1e6)
    setup.report.add("speech", f"B={B}, us a step: {text}; up to {real_time:.0f} times real time", B=B, us=us)


def hundred_symbols(B: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """B texts: ids [B, 100], lengths [B]."""
    return (torch.arange(100 * B, device=device) % 147 + 1).view(B, 100), torch.full((B,), 100, device=device)


def speak(setup: Setup, model: Tacotron2, B: int, *, frames: int) -> None:
    """Decodes exactly so many frames of B texts."""
    text, lengths = hundred_symbols(B, setup.device)
    limits = DecodeLimits(frames, gate_threshold=2.0, frames_per_symbol=float(frames), dwell_frames=10 * frames)
    memory, generator = model.encode(text, lengths), torch.Generator(setup.device).manual_seed(0)
    mel = model.decoder.infer(memory, lengths, limits, generator)[0]
    assert mel.size(2) == frames, f"{mel.size(2)} frames instead of {frames}"


# ---- never waits?


def product_step(options: str, shape: Shape, device: torch.device) -> tuple[TrainStep, Batch]:
    """What takes steps as the product's trainer does, in bf16, and a batch as its loader gives it."""
    hp = create_hparams(f"fp16_run=True,{options}".rstrip(","))
    model = Tacotron2(hp, n_speakers=3).to(device).train()
    given = TrainingBatch.of(shape)
    batch = Batch(
        given.text, given.text_lengths, given.mel, given.mel_lengths, given.gate[:, model.r - 1 :: model.r],
        tuple(map(str, range(shape.B))), speakers=torch.arange(shape.B) % 3,
    )  # fmt: skip
    corpus: Any = SimpleNamespace(front_end=FrontEnd.create())  # nothing else of a corpus is read
    train_step = TrainStep(hp, model, corpus, device)
    return train_step, batch.pin_memory() if device.type == "cuda" else batch


def waits(setup: Setup) -> None:
    """Whole steps of the product, copying the batch included, where waiting for the device is an error."""
    shape = setup.checked[-1] if len(setup.checked) == 1 else Shape(16, 240, 80)
    waiting = {}
    for what, options in WAITED_FOR.items():
        train_step, batch = product_step(options, shape, setup.device)
        limits = StepLimits(inf, 1000.0)
        train_step.run([batch], step=1, rate_scale=1.0, limits=limits)  # records, and makes Adam's state
        train_step.forbids_waits = True
        try:
            train_step.run([batch], step=2, rate_scale=1.0, limits=limits)
        except (HostSyncError, RuntimeError) as error:
            waiting[what] = in_short(error)
            setup.report.add("waits", f"{what}: {waiting[what]}", what=what)
    never = [what for what in WAITED_FOR if what not in waiting]
    setup.report.add("waits", f"a step never waits with: {'; '.join(never) or 'none of the options'}", never=never)
