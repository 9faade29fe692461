"""Speak sentences with Hibari, a small neural voice of American English, one wav file each; a process of its own.

    python corpus/demo/hibari_speech.py FOLDER < sentences.jsonl

Each line of stdin is {"id": ..., "text": ...}; FOLDER/<id>.wav appears as mono floats at Hibari's rate (24 kHz). Voice
and weights come with the package hibari-tts (Apache-2.0); nothing is downloaded.
"""

import json
import os
import sys
import zlib
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # see common; this process imports nothing of the project

EXIT_NO_PACKAGE, EXIT_FAILED = 3, 4  # as those of espeak.py: the caller says what to do


def main(arguments: list[str]) -> int:
    (folder,) = arguments
    try:
        import soundfile
        from hibari import SAMPLE_RATE, Hibari

        voice = Hibari()  # imports onnxruntime
        for line in sys.stdin:
            sentence = json.loads(line)
            # the breath in the voice is noise: the same in each sentence of this name, whoever else is in the batch
            wav = voice(sentence["text"], seed=zlib.crc32(sentence["id"].encode()))  # [L]
            soundfile.write(Path(folder) / f"{sentence['id']}.wav", wav, SAMPLE_RATE, subtype="FLOAT")
    except ImportError as error:
        print(f"the package hibari-tts cannot be imported: {error}", file=sys.stderr)
        return EXIT_NO_PACKAGE
    except (OSError, RuntimeError) as error:  # soundfile's and onnxruntime's are RuntimeErrors
        print(error, file=sys.stderr)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
