"""Pictures, sounds and texts of each validation as files of the run: `alignments/`, `samples/`."""

import json
from dataclasses import dataclass
from pathlib import Path

from audio.recordings import write_wav
from common.files import write_atomic
from monitoring import plots
from monitoring.observer import RunInfo
from run_directory.records import EvalRecord, Record, Sample

ENDED = {  # of speech by its `stop_reason`, in the title of a picture
    "gate": "stopped by itself",
    "dwell": "ended on the last symbol",
    "budget": "cut: too long for its text",
    "limit": "cut at max_decoder_steps",
}
DRAWN_SAMPLES = 3  # per validation; the first texts, so that pictures of different steps compare


@dataclass
class PictureSchedule:
    """Which validations are drawn: the first one with samples, then one every so many steps, at the end the last one.

    Drawing takes a third of a second of a core a picture, and the interpreter, which training then waits for.
    """

    every: int
    at: int = -1  # the step that was drawn last
    latest: EvalRecord | None = None

    def is_due(self, record: EvalRecord) -> bool:
        """Of each validation once."""
        if not record.samples:
            return False
        self.latest = record
        is_due = self.at < 0 or record.step - self.at >= self.every
        self.at = record.step if is_due else self.at
        return is_due

    def left(self) -> EvalRecord | None:
        """At the end: the last validation, unless it is drawn."""
        return self.latest if self.latest is not None and self.latest.step != self.at else None


def figure_of(sample: Sample) -> plots.Figure:
    """Alignment, predicted and target mel, and gate of one sample."""
    return plots.sample_figure(
        sample.alignment,
        predicted_mel=sample.mel,
        frame_s=sample.frame_s,
        target_mel=sample.target_mel,
        gate=sample.gate,
        text=sample.symbols,
        title=f"{sample.text} ({ENDED[sample.stop_reason]})",
    )


def _name(record: EvalRecord, i: int) -> str:
    return f"step_{record.step:08d}_{i}"


class SampleFiles:
    """Writes PNG, wav and JSON files; made to run behind a queue.

    Sounds and texts of every validation; pictures every `plot_every` steps.
    """

    def __init__(self, *, plot_every: int) -> None:
        self._schedule = PictureSchedule(every=plot_every)

    def on_start(self, run: RunInfo) -> None:
        self._directory = run.directory

    def on_record(self, record: Record) -> None:
        if not isinstance(record, EvalRecord) or not record.samples:
            return
        self._write_texts(record)
        for i, sample in enumerate(record.samples[:DRAWN_SAMPLES]):
            if sample.wav is not None:
                write_wav(self._path("samples", f"{_name(record, i)}.wav"), sample.wav, sample.sampling_rate)
        if self._schedule.is_due(record):
            self._plot(record)

    def _write_texts(self, record: EvalRecord) -> None:
        said = [{"text": s.text, "stop_reason": s.stop_reason} for s in record.samples[:DRAWN_SAMPLES]]
        name = f"step_{record.step:08d}.json"
        write_atomic(self._path("samples", name), json.dumps(said, ensure_ascii=False) + "\n")

    def _plot(self, record: EvalRecord) -> None:
        for i, sample in enumerate(record.samples[:DRAWN_SAMPLES]):
            title = f"{sample.text} ({ENDED[sample.stop_reason]})"
            figure = plots.alignment_figure(sample.alignment, text=sample.symbols, title=title)
            plots.save_png(figure, self._path("alignments", f"{_name(record, i)}.png"))
            plots.save_png(figure_of(sample), self._path("samples", f"{_name(record, i)}.png"))

    def close(self) -> None:
        if (record := self._schedule.left()) is not None:
            self._plot(record)

    def _path(self, folder: str, name: str) -> Path:
        return self._directory / folder / name
