"""A speech as bytes for a client: a wav, or JSON with sound, times and attention."""

import base64
from typing import Any

import numpy as np

from audio.recordings import pcm16
from audio.wav_output import wav_header
from serving.speaking_queue import Spoken
from speech.narration import NarratedPart
from speech.timing import TimedText


def wav_of(spoken: Spoken) -> bytes:
    """16-bit wav of the whole. DataError where it holds NaN."""
    speech = spoken.speech
    samples = pcm16(speech.wav, name="the answer").astype("<i2").tobytes()
    return wav_header(speech.sampling_rate, n_bytes=len(samples)) + samples


def headers_of(spoken: Spoken) -> dict[str, str]:
    """For those who take the wav alone."""
    return {
        "X-Duration-S": f"{spoken.speech.duration_s:.3f}",
        "X-Real-Time-Factor": f"{real_time_factor(spoken):.3f}",
        "Cache-Control": "no-store",
    }


def real_time_factor(spoken: Spoken) -> float:
    """Seconds of work for a second of sound."""
    return spoken.work_s / max(spoken.speech.duration_s, 1e-9)


def json_of(spoken: Spoken, *, with_attention: bool) -> dict[str, Any]:
    """Plain data; times in seconds."""
    speech = spoken.speech
    said = [part for part in speech.parts if part.utterance is not None]
    return {
        "wav": base64.b64encode(wav_of(spoken)).decode("ascii"),
        "sampling_rate": speech.sampling_rate,
        "duration_s": round(speech.duration_s, 3),
        "waited_s": round(spoken.waited_s, 3),
        "real_time_factor": round(real_time_factor(spoken), 3),
        "sentences": [_sentence(part, with_attention=with_attention) for part in said],
        "words": [_timed(word) for word in speech.words],
    }


def _sentence(part: NarratedPart, *, with_attention: bool) -> dict[str, Any]:
    assert part.utterance is not None
    answer = {**_timed(part.sentence), "verdict": part.utterance.verdict}
    if with_attention:
        alignment = part.utterance.sample.alignment  # [T_dec, T_text]
        weights = np.rint(np.clip(alignment, 0.0, 1.0) * 255).astype(np.uint8)
        answer["attention"] = {
            "steps": alignment.shape[0],
            "symbols": list(part.utterance.sample.symbols),
            "weights": base64.b64encode(weights.tobytes()).decode("ascii"),
        }
    return answer


def _timed(timed: TimedText) -> dict[str, Any]:
    return {"text": timed.text, "start_s": round(timed.start_s, 3), "end_s": round(timed.end_s, 3)}
