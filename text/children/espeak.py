"""IPA of a hundred languages by espeak-ng. Run as `python -m text.children.espeak`.

libespeak-ng is under the GNU General Public License, version 3. This module loads it only when it runs as that process
of its own, which talks through text; importing it loads nothing. Nothing of the library is shipped: it comes with the
package espeakng-loader that the user installs.

Settings: {"voice": language code}. Answer for each text: [IPA, [text read by another language's rules, its IPA], ...].
"""

import ctypes
import re
import sys
from typing import Any

from text.children.serving import Answer, Refusal, serve

# From espeak-ng/speak_lib.h, API revision 12.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
CHARS_UTF8 = 1
PHONEMES_IPA = 2
EE_OK = 0

# Punctuation between clauses, kept as it is: before a space or the end, in front of a word, or East Asian anywhere.
_CLOSING = r"[;:,.!?\u2014\u2013\u2026\"\u00ab\u00bb\u201c\u201d\u201e()\[\]\u060c\u061f\u061b]+(?=\s|$)"
_OPENING = r"(?:^|(?<=\s))[\u00a1\u00bf\u2014\u2013\"\u00ab\u00bb\u201c\u201d\u201e(\[]+"
_ANYWHERE = r"[\u3002\u3001\uff0c\uff1f\uff01\uff1a\uff1b\u0964\u2014\u2026\u00ab\u00bb\u201c\u201d\u201e\"()\[\]]+"
_PAUSES = re.compile(f"({_CLOSING}|{_OPENING}|{_ANYWHERE})")
# Left over from espeak-ng's own phoneme names where it has no IPA; "." and ":" would be read as punctuation.
_LEFTOVERS = {"r.": "\u027d", "s.": "\u0282", "z.": "\u0290", "i.": "\u0268", "?": "\u0294", ":": "\u02d0"}
_LEFTOVER = re.compile(r"[rszi]\.|[?:]|[-.\[\]()\"]")
_SWITCH = re.compile(r"\(([a-z]{2,3}[a-z-]*)\)")


class Phonemizer:
    """One espeak-ng voice in this process; the library keeps global state, so there can be only one."""

    def __init__(self, voice: str) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path()
        self._library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        if self._library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), INITIALIZE_DONT_EXIT) <= 0:
            raise Refusal(f"espeak-ng does not start with {data}: pip install --force-reinstall espeakng-loader")
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
        if self._library.espeak_SetVoiceByName(voice.encode()) != EE_OK:
            raise Refusal(f"espeak-ng has no voice {voice}; `python -m text languages` lists what it reads")

    def read(self, text: str) -> list[Any]:
        """IPA with the text's own punctuation, and what another language's rules read."""
        switched: list[list[str]] = []
        parts = []
        for i, part in enumerate(_PAUSES.split(text)):
            spoken = i % 2 == 0 and part.strip()
            parts.append(self._clause(part, switched) if spoken else part)
        return ["".join(parts), *switched]

    def _clause(self, part: str, switched: list[list[str]]) -> str:
        pointer = ctypes.c_char_p(part.encode("utf-8"))
        clauses = []
        while pointer.value is not None:
            ipa = self._library.espeak_TextToPhonemes(ctypes.byref(pointer), CHARS_UTF8, PHONEMES_IPA) or b""
            clauses.append(ipa.decode("utf-8").strip())
        before = part[: len(part) - len(part.lstrip())]
        after = part[len(part.rstrip()) :]
        return before + self._without_flags(" ".join(filter(None, clauses)), part.strip(), switched) + after

    @staticmethod
    def _without_flags(ipa: str, part: str, switched: list[list[str]]) -> str:
        pieces = _SWITCH.split(ipa)  # text, language, text, language, text: the first foreign stretch is between flags
        for foreign in pieces[2::4]:
            switched.append([part, foreign.strip()])
        return _LEFTOVER.sub(lambda match: _LEFTOVERS.get(match[0], ""), "".join(pieces[::2]))


def prepare(settings: dict[str, Any]) -> Answer:
    phonemizer = Phonemizer(settings["voice"])
    return lambda request: [phonemizer.read(text) for text in request["texts"]]


if __name__ == "__main__":
    sys.exit(serve(prepare))
