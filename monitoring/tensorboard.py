"""TensorBoard: scalars of every record, the sounds of every validation, and alignments and mels of some."""

import errno
import os
import shutil

from monitoring import plots
from monitoring.observer import RunInfo
from monitoring.sample_files import PictureSchedule, figure_of
from monitoring.scalars import scalars_of
from run_directory.records import EvalRecord, Event, Record, StepRecord

LOGGED_SAMPLES = 3
LEAST_ROOM_BYTES = 2**22  # a validation writes a megabyte or two


class TensorBoardObserver:
    """Writes event files into the log directory. The writer is made in the thread that uses it."""

    def __init__(self, *, images: bool, alignment_scalars: bool, picture_every: int) -> None:
        """images: whether alignments are shown apart; the first sample is drawn whole in any case."""
        self.images, self.alignment_scalars, self._schedule = (
            images,
            alignment_scalars,
            PictureSchedule(every=picture_every),
        )

    def on_start(self, run: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._directory = run.log_directory
        # steps that an earlier attempt wrote beyond the first one of this will be written again
        self._writer = SummaryWriter(str(run.log_directory), purge_step=run.first_step + 1)
        lines = [f"| {name} | `{value}` |" for name, value in run.hparams.items()]
        self._writer.add_text("hparams", "\n".join(["| name | value |", "|---|---|", *lines]), run.first_step)

    def on_record(self, record: Record) -> None:
        """OSError while the disk is full, before the library meets it: its writer would never write again."""
        if shutil.disk_usage(self._directory).free < LEAST_ROOM_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if isinstance(record, StepRecord):
            self._scalars(record)
        elif isinstance(record, EvalRecord):
            self._on_eval(record)
        else:
            self._on_event(record)

    def _scalars(self, record: StepRecord | EvalRecord) -> None:
        for name, value in scalars_of(vars(record), alignment=self.alignment_scalars).items():
            self._writer.add_scalar(name, value, record.step)

    def _on_eval(self, record: EvalRecord) -> None:
        self._scalars(record)
        for i, sample in enumerate(record.samples[:LOGGED_SAMPLES]):
            if sample.wav is not None:
                self._writer.add_audio(f"audio/{i}", sample.wav[None], record.step, sample_rate=sample.sampling_rate)
        if self._schedule.is_due(record):
            self._draw(record)
        self._writer.flush()

    def _draw(self, record: EvalRecord) -> None:
        for i, sample in enumerate(record.samples[: LOGGED_SAMPLES if self.images else 0]):
            figure = plots.alignment_figure(sample.alignment, text=sample.symbols, title=sample.text)
            self._image(f"alignment/{i}", figure, record.step)
        self._image("sample/0", figure_of(record.samples[0]), record.step)

    def _image(self, tag: str, figure: plots.Figure, step: int) -> None:
        self._writer.add_image(tag, plots.figure_to_array(figure), step, dataformats="HWC")

    def _on_event(self, event: Event) -> None:
        self._writer.add_text(f"event/{event.kind}", event.message, event.step)

    def close(self) -> None:
        if (record := self._schedule.left()) is not None:
            self._draw(record)
        self._writer.close()
