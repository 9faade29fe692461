"""What is wrong with one recording, judged by its measures: the same rules before training and in the doctor.

An error makes the line unusable: there is no speech to learn, or it is not the sound that was meant. A warning lets it
train. The limits were set so that two real corpora (1132 and 620 utterances) give no error; what each measures there
stands beside its limit.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from corpus.findings import SEVERITIES, Finding, error, errors_of, warning
from corpus.recording_files import FLOATS, LOSSY
from corpus.recording_measures import LEVEL_FLOOR_DB, RecordingMeasures

INTEGER_SCALE = 8.0  # a float peak beyond this was never divided by its full scale
OVER_FULL_SCALE = 1.1  # lossy coding of a whole signal adds up to a tenth
SILENT_DB = -70.0  # peak: ten steps of 16 bits
QUIET_DB = -50.0  # of loud frames; real: -29 to -12
CONSTANT_DB = -70.0  # what is left when the mean is taken off
OFFSET = 0.02  # mean, of full scale; real: 0.0008
NOISE_PEAKINESS = 3.8  # noise of any colour: under 3.6; voices: over 5.1, a robotic one over 4.1
STEADY_DB = 6.0  # loud over quiet frames; speech in noise of its own level: 6
NOISE_DYNAMICS_DB = 12.0
NOISY_DB = 17.0  # a signal-to-noise ratio of about 11 dB; real: 19.8 and more
WRAPPED_JUMPS = 3  # real: 0
DROPOUTS = 3  # real: 0
CLIPPED_SHARE = 5e-4  # of samples; real: 0
DEAD_DB = 40.0  # a channel this much under the loudest
CANCELLED_DB = 20.0  # the mix this much under the loudest channel
OPPOSED_DB = 10.0
UNLIKE_DB = 2.2  # lost by mixing: two channels of equal level that correlate by less than 0.2
BANDWIDTH_OF_MELS = 0.7  # 5.6 kHz where mels end at 8; a corpus recorded at 16 kHz: 6.2 to 7.1 kHz
LEADING_S, TRAILING_S = 0.75, 1.25  # real: up to 0.73, 1.16
PAUSE_S = 1.5  # inside a sentence; real: up to 1.0
LONG_S = 30.0  # attention rarely learns more, and one such clip sets the memory of a whole batch
SHORT_S = 0.25


@dataclass(frozen=True)
class Wanted:
    """What training will make of recordings: its rate in Hz, the end of its mels in Hz, and its window in seconds."""

    sampling_rate: int = 22050
    mel_fmax: float = 8000.0
    window_s: float = 1024 / 22050


def check_recording(measures: RecordingMeasures, wanted: Wanted | None = None) -> list[Finding]:
    """Everything that is wrong with one recording, errors first; what has no speech at all is not judged further."""
    wanted = wanted or Wanted()
    found = [*_broken(measures, wanted)]
    if not errors_of(found):
        found += _without_speech(measures)
    if not errors_of(found):
        found += [*_channels(measures), *_waveform(measures), *_level(measures), *_voice(measures), *_timing(measures)]
        found += _band(measures, wanted)
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _broken(m: RecordingMeasures, wanted: Wanted) -> Iterator[Finding]:
    if m.cut_off is not None:
        say = warning if "not marked" in m.cut_off else error  # some programs never mark it
        yield say("cut off", f"the file is cut off: {m.cut_off}", "restore it, or drop the line", value=m.duration_s)
    if m.not_finite:
        yield error(
            "not finite",
            f"{m.not_finite} samples are NaN or infinite",
            "export it again, or drop the line",
            value=m.not_finite,
            limit=0,
        )
    if m.peak > INTEGER_SCALE:
        bits = 16 if m.peak <= 2**15 else 24 if m.peak <= 2**23 else 32
        yield error(
            "integer scale",
            f"float samples up to {m.peak:.0f}, where full scale is 1",
            f"divide them by {2 ** (bits - 1)}, or export as {min(bits, 24)}-bit integers",
            value=m.peak,
            limit=INTEGER_SCALE,
        )
    if m.duration_s < wanted.window_s:
        yield error(
            "too short",
            f"{m.duration_s:.3f} s, less than one window of {wanted.window_s:.3f} s",
            "drop the line",
            value=m.duration_s,
            limit=wanted.window_s,
        )


def _without_speech(m: RecordingMeasures) -> Iterator[Finding]:
    loudest_db = max(m.channel_db, default=LEVEL_FLOOR_DB)
    if m.peak < 10 ** (SILENT_DB / 20):
        what = "digital silence" if m.peak == 0 else f"nearly silent: peak {m.peak:.1e} of full scale"
        yield error("silent", what, "record it again, or drop the line", value=m.peak, limit=10 ** (SILENT_DB / 20))
    elif m.changes_db < CONSTANT_DB and abs(m.mean) < 10 ** (CONSTANT_DB / 20):
        yield error(
            "silent",
            f"nearly silent: {m.changes_db:.0f} dB of full scale",
            "record it again, or drop the line",
            value=m.changes_db,
            limit=CONSTANT_DB,
        )
    elif m.changes_db < CONSTANT_DB:
        yield error(
            "constant",
            f"one constant value, {m.mean:.3f} of full scale, and no sound",
            "record it again, or drop the line",
            value=m.mean,
        )
    elif loudest_db - m.mixed_db > CANCELLED_DB:
        yield error(
            "channels cancel",
            f"the channels cancel each other: {m.mixed_db:.0f} dB mixed, {loudest_db:.0f} dB alone",
            "keep one channel, or invert the polarity of one",
            value=loudest_db - m.mixed_db,
            limit=CANCELLED_DB,
        )
    elif m.peakiness < NOISE_PEAKINESS and m.dynamics_db < NOISE_DYNAMICS_DB:
        yield error(
            "noise alone",
            f"noise without speech: no harmonics, and the level hardly moves ({m.dynamics_db:.0f} dB)",
            "listen to it; record it again, or drop the line",
            value=m.peakiness,
            limit=NOISE_PEAKINESS,
        )


def _channels(m: RecordingMeasures) -> Iterator[Finding]:
    loudest_db = max(m.channel_db, default=LEVEL_FLOOR_DB)
    dead = [i for i, level in enumerate(m.channel_db, start=1) if loudest_db - level > DEAD_DB]
    if dead:
        named = ", ".join(str(i) for i in dead)
        yield warning(
            "dead channel",
            f"channel {named} of {len(m.channel_db)} is silent",
            "keep the other channel; mixed, the recording is half as loud as its neighbours",
            value=loudest_db - min(m.channel_db),
            limit=DEAD_DB,
        )
    elif loudest_db - m.mixed_db > OPPOSED_DB:
        yield warning(
            "channels cancel",
            f"mixing the channels loses {loudest_db - m.mixed_db:.0f} dB",
            "keep one channel",
            value=loudest_db - m.mixed_db,
            limit=OPPOSED_DB,
        )
    elif m.mixing_loss_db > UNLIKE_DB:
        yield warning(
            "channels differ",
            f"the {len(m.channel_db)} channels have little in common, and training mixes them: two voices, or one that "
            "comes later in the other",
            "listen, and keep the channel that says the text",
            value=m.mixing_loss_db,
            limit=UNLIKE_DB,
        )


def _waveform(m: RecordingMeasures) -> Iterator[Finding]:
    over = m.peak > OVER_FULL_SCALE
    if over and (m.encoding in FLOATS or m.encoding in LOSSY or not m.encoding):
        yield warning(
            "over full scale",
            f"peak {m.peak:.2f}, where full scale is 1",
            "lower it, or export it again from the original",
            value=m.peak,
            limit=OVER_FULL_SCALE,
        )
    if m.wrapped >= WRAPPED_JUMPS and m.clipped <= CLIPPED_SHARE and not over:
        yield warning(
            "overflow",
            f"{m.wrapped} jumps from one end of the scale to the other: it was too loud once, and its peaks overflowed",
            "export it again from the original with less gain, or drop the line",
            value=m.wrapped,
            limit=WRAPPED_JUMPS,
        )
    if m.dropouts >= DROPOUTS:
        yield warning(
            "dropouts",
            f"breaks off into zeros {m.dropouts} times in the middle of sound, as where packets are lost",
            "copy or record it again, or drop the line",
            value=m.dropouts,
            limit=DROPOUTS,
        )
    if m.clipped > CLIPPED_SHARE:
        yield warning(
            "clipped",
            f"{100 * m.clipped:.2g} % of samples lie on flat tops at {m.peak:.2f}",
            "record it again with less gain, or drop the line",
            value=m.clipped,
            limit=CLIPPED_SHARE,
        )


def _level(m: RecordingMeasures) -> Iterator[Finding]:
    if m.loud_db < QUIET_DB:
        yield warning(
            "quiet",
            f"loud parts reach only {m.loud_db:.0f} dB of full scale",
            "raise it to the level of the others",
            value=m.loud_db,
            limit=QUIET_DB,
        )
    if abs(m.mean) > OFFSET:
        yield warning(
            "offset",
            f"it has a DC offset of {m.mean:.3f} of full scale",
            "subtract its mean",
            value=m.mean,
            limit=OFFSET,
        )


def _voice(m: RecordingMeasures) -> Iterator[Finding]:
    """Whether it sounds like somebody who speaks."""
    if m.dynamics_db < STEADY_DB:
        yield warning(
            "steady",
            f"the level moves by {m.dynamics_db:.0f} dB only, that of speech by 20 and more",
            "listen whether anybody speaks",
            value=m.dynamics_db,
            limit=STEADY_DB,
        )
    elif m.dynamics_db < NOISY_DB:
        yield warning(
            "noisy",
            f"speech rises over the noise by only {m.dynamics_db:.0f} dB",
            "remove the noise, or drop the line",
            value=m.dynamics_db,
            limit=NOISY_DB,
        )
    if m.peakiness < NOISE_PEAKINESS:
        yield warning(
            "no voice",
            "no harmonics of a voice: noise, or a whisper",
            "listen to it",
            value=m.peakiness,
            limit=NOISE_PEAKINESS,
        )


def _timing(m: RecordingMeasures) -> Iterator[Finding]:
    edges = (
        ("leading silence", "before the first", m.leading_s, LEADING_S),
        ("trailing silence", "after the last", m.trailing_s, TRAILING_S),
    )
    for kind, where, seconds, limit in edges:
        if seconds > limit:
            yield warning(kind, f"{seconds:.1f} s of silence {where} sound", "trim it", value=seconds, limit=limit)
    if m.longest_pause_s > PAUSE_S:
        yield warning(
            "long pause",
            f"a pause of {m.longest_pause_s:.1f} s inside",
            "cut it there, or shorten the pause",
            value=m.longest_pause_s,
            limit=PAUSE_S,
        )
    if m.duration_s > LONG_S:
        yield warning(
            "long", f"{m.duration_s:.0f} s long", "cut it at pauses, with its text", value=m.duration_s, limit=LONG_S
        )
    if m.duration_s < SHORT_S:
        yield warning(
            "short",
            f"only {m.duration_s:.2f} s long",
            "listen whether the text is in it",
            value=m.duration_s,
            limit=SHORT_S,
        )


def _band(m: RecordingMeasures, wanted: Wanted) -> Iterator[Finding]:
    needed = BANDWIDTH_OF_MELS * min(wanted.mel_fmax, wanted.sampling_rate / 2)
    if m.bandwidth_hz < needed:
        source = f"recorded at {m.sampling_rate} Hz" if m.sampling_rate < 2 * needed else "it was once at a lower rate"
        yield warning(
            "narrow band",
            f"no sound above {m.bandwidth_hz:.0f} Hz ({source}), while mels reach {wanted.mel_fmax:.0f} Hz",
            "use the original recording; a voice learns to sound like a telephone",
            value=m.bandwidth_hz,
            limit=needed,
        )
