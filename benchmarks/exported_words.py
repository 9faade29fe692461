"""How an exported voice sounds: the words misheard of a trained voice by torch, and by the player in fp32 and int8.

    python benchmarks/exported_words.py -c output --filelist dataset/test.csv

Griffin-Lim, the same seed; Whisper tiny.en judges. The player draws other dropout than torch does.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from corpus.filelists import read_filelist
from exporting.card import Card
from exporting.files import export_onnx
from listeners.recogniser import Recogniser
from listeners.words import cer, wer
from player.voice import OnnxVoice
from speech.voice import Voice


def judge(name: str, size_mb: float | None, texts: list[str], say: Callable[[str], np.ndarray], rate: int) -> None:
    """say: a text -> sound [L]"""
    sounds = [say(text) for text in texts]
    heard = Recogniser("en").transcribe(sounds, sampling_rate=rate)
    seconds = sum(len(sound) for sound in sounds) / rate
    size = "" if size_mb is None else f"{size_mb:.1f}"
    print(f"| {name} | {size} | {wer(texts, heard):.1%} | {cer(texts, heard):.1%} | {seconds:.0f} |", flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-c", "--checkpoint-path", required=True, type=Path)
    p.add_argument("--filelist", required=True, type=Path)
    p.add_argument("--dataset-path", type=Path, help="folder of the list's recordings (default: that of the list)")
    args = p.parse_args()
    root = args.dataset_path or args.filelist.parent
    texts = [u.text for u in read_filelist(args.filelist, dataset_path=root, data_roots=[]).utterances]
    voice = Voice.load(args.checkpoint_path)
    print("| | MB | word errors | character errors | s of sound |\n|---|---|---|---|---|")
    judge("torch, fp32", None, texts, lambda text: voice.synthesize(text).wav, voice.sampling_rate)
    with tempfile.TemporaryDirectory() as folder:
        for is_int8 in (False, True):
            path = Path(folder) / "voice.zip"
            size = export_onnx(voice, path, Card("voice"), is_int8=is_int8).n_bytes / 1e6
            player = OnnxVoice.load(path)
            judge(f".zip, {'int8' if is_int8 else 'fp32'}", size, texts, player.synthesize, player.sampling_rate)


if __name__ == "__main__":
    main()
