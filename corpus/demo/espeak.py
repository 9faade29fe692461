"""Speak sentences with espeak-ng, one wav file each; run as a process of its own.

    python corpus/demo/espeak.py FOLDER VOICE RATE PITCH < sentences.jsonl

Each line of stdin is {"id": ..., "text": ...}; FOLDER/<id>.wav appears as 16-bit mono at the rate of the
synthesiser (22050 Hz). RATE is words per minute, PITCH is 0..99.

libespeak-ng is under the GNU General Public License, version 3. This script is the only code here that loads it, and
only when it runs as that process of its own, which talks through text and files; importing it loads nothing. Nothing
of the library is shipped: it comes with the package espeakng-loader that the user installs. The licence covers the
program, not the sound it makes.
"""

import ctypes
import json
import sys
import wave
from pathlib import Path

EXIT_NO_LIBRARY = 3
EXIT_SYNTHESIS_FAILED = 4

# From espeak-ng/speak_lib.h, API revision 12.
AUDIO_OUTPUT_SYNCHRONOUS = 2
PARAMETER_RATE = 1
PARAMETER_PITCH = 3
POSITION_CHARACTER = 1
CHARS_UTF8 = 1
EE_OK = 0

SAMPLE_BYTES = 2
SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Synthesiser:
    """One espeak-ng voice in this process; the library keeps global state, so there can be only one."""

    def __init__(self, *, voice: str, rate_wpm: int, pitch: int) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._samples = bytearray()
        data_path = espeakng_loader.get_data_path().encode()
        self.sampling_rate = self._library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data_path, 0)
        if self.sampling_rate <= 0:
            raise OSError(f"espeak-ng did not start with the data in {data_path.decode()}")
        self._callback = SynthCallback(self._collect)  # must outlive every call into the library
        self._library.espeak_SetSynthCallback(self._callback)
        self._check(self._library.espeak_SetVoiceByName(voice.encode()), f"voice {voice!r}")
        self._check(self._library.espeak_SetParameter(PARAMETER_RATE, rate_wpm, 0), f"rate {rate_wpm}")
        self._check(self._library.espeak_SetParameter(PARAMETER_PITCH, pitch, 0), f"pitch {pitch}")

    def speak(self, text: str) -> bytes:
        """16-bit mono samples of one sentence; RuntimeError if the library refuses or stays silent."""
        self._samples.clear()
        data = text.encode() + b"\0"
        status = self._library.espeak_Synth(data, len(data), 0, POSITION_CHARACTER, 0, CHARS_UTF8, None, None)
        self._check(status, f"text {text!r}")
        if not self._samples:
            raise RuntimeError(f"espeak-ng returned no sound for {text!r}")
        return bytes(self._samples)

    def _collect(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._samples += ctypes.string_at(samples, count * SAMPLE_BYTES)
        return 0  # go on

    @staticmethod
    def _check(status: int, what: str) -> None:
        if status != EE_OK:
            raise RuntimeError(f"espeak-ng refused {what} (status {status})")


def write_wav(path: Path, samples: bytes, *, sampling_rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(sampling_rate)
        file.writeframes(samples)


def main(arguments: list[str]) -> int:
    folder, voice, rate_wpm, pitch = arguments
    try:
        synthesiser = Synthesiser(voice=voice, rate_wpm=int(rate_wpm), pitch=int(pitch))
        for line in sys.stdin:
            sentence = json.loads(line)
            samples = synthesiser.speak(sentence["text"])
            write_wav(Path(folder) / f"{sentence['id']}.wav", samples, sampling_rate=synthesiser.sampling_rate)
    except ImportError as error:
        print(f"the package espeakng-loader cannot be imported: {error}", file=sys.stderr)
        return EXIT_NO_LIBRARY
    except (OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return EXIT_SYNTHESIS_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
