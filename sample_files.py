"""Pictures and sounds of each validation as files of the run: `alignments/`, `samples/`."""

from pathlib import Path

import plots
from audio import write_wav
from run_log import EvalRecord, Record, RunInfo, Sample

DRAWN_SAMPLES = 3  # per validation; the first texts, so that pictures of different steps compare


def figure_of(sample: Sample) -> plots.Figure:
    """Alignment, predicted and target mel, and gate of one sample."""
    return plots.sample_figure(
        sample.alignment,
        predicted_mel=sample.mel,
        frame_s=sample.frame_s,
        target_mel=sample.target_mel,
        gate=sample.gate,
        text=sample.symbols,
        title=f"{sample.text} (stopped by {sample.stop_reason})",
    )


class SampleFiles:
    """Writes PNG and wav files; made to run behind a queue."""

    def __init__(self, *, plot_every: int) -> None:
        self.plot_every, self._plotted_at = plot_every, -1

    def on_start(self, run: RunInfo) -> None:
        self._directory = run.directory

    def on_record(self, record: Record) -> None:
        if isinstance(record, EvalRecord) and record.samples:
            for i, sample in enumerate(record.samples[:DRAWN_SAMPLES]):
                self._write(f"step_{record.step:08d}_{i}", sample, plot=self._is_due(record))
            if self._is_due(record):
                self._plotted_at = record.step

    def _is_due(self, record: EvalRecord) -> bool:
        never = self._plotted_at < 0
        return never or record.is_best or record.step - self._plotted_at >= self.plot_every

    def _write(self, name: str, sample: Sample, *, plot: bool) -> None:
        if sample.wav is not None:
            write_wav(self._path("samples", f"{name}.wav"), sample.wav, sample.sampling_rate)
        if plot:
            title = f"{sample.text} (stopped by {sample.stop_reason})"
            figure = plots.alignment_figure(sample.alignment, text=sample.symbols, title=title)
            plots.save_png(figure, self._path("alignments", f"{name}.png"))
            plots.save_png(figure_of(sample), self._path("samples", f"{name}.png"))

    def _path(self, folder: str, name: str) -> Path:
        (self._directory / folder).mkdir(parents=True, exist_ok=True)
        return self._directory / folder / name

    def close(self) -> None:
        pass
