"""Russian: numbers and abbreviations in words, stress, the letter yo. Run as `python -m text.children.russian`.

ru-normalizr writes out, silero-stress sets `+` before stressed vowels. The latter's model file runs code when it is
loaded, so it is loaded here, in a process without the parent's secrets, and only if it is the file that was looked at.

Settings: {"normalise": bool, "stress": bool}. Each request has "spellings" beside "texts": {word: stressed spelling}.
Answer for each text: {"normalised": str, "stressed": str, "guesses": [[kind, word, reading], ...]}.
"""

import functools
import hashlib
import importlib.resources
import re
import sys
from collections.abc import Sequence
from typing import Any

from text.children.serving import Answer, Refusal, serve

# silero-stress 1.5, accentor.pt
MODEL_SHA256 = "aecb207df9db34a079de2ba91edba2a9333839ad24de0cf17e7bc82424876786"
VOWELS = "\u0430\u043e\u0443\u044b\u044d\u0438\u0435\u0451\u044e\u044f"
YE, YO = "\u0435", "\u0451"
SURE = 0.7  # says little: of 52 dictionary words marked by hand 21 were wrong, 18 of them with 0.98 and more
HOMOGRAPH_BATCH = 32
WORDS_AT_ONCE = 256
# Beside a hyphen; no dictionary has them alone.
PARTICLES = frozenset((
    "\u043d\u0438\u0431\u0443\u0434\u044c", "\u043b\u0438\u0431\u043e",
    "\u0442\u0430\u043a\u0438", "\u043a\u043e\u0435",
))  # fmt: skip
_LETTERS = "\u0430-\u044f\u0451\u0410-\u042f\u0401"
_WORD = re.compile(rf"[{_LETTERS}+]*[{_LETTERS}][{_LETTERS}+]*")


class Stresser:
    """silero-stress by its parts, so that homographs go in batches, words only once, and doubts come out."""

    def __init__(self) -> None:
        _check_model()
        from silero_stress import load_accentor

        model = load_accentor()
        self._homographs, self._accentor = model.homosolver, model.accentor
        self._dictionary = _dictionary()
        self._readings: dict[str, tuple[str, float]] = {}
        self._probabilities: Any = None
        self._remember_probabilities()

    def stressed(self, texts: Sequence[str]) -> list[tuple[str, list[list[str]]]]:
        """Each text in small letters with `+` before stressed vowels, and what was guessed."""
        solved = self._solve_homographs([text.lower() for text in texts])
        self._read_words(sorted({word for text, _ in solved for word in _WORD.findall(text)} - set(self._readings)))
        return [self._with_words(text, guesses) for text, guesses in solved]

    def _with_words(self, text: str, guesses: list[list[str]]) -> tuple[str, list[list[str]]]:
        found = list(guesses)

        def reading(match: re.Match[str]) -> str:
            word = match[0]
            stressed, certainty = self._readings[word]
            found.extend(self._guesses(word, stressed, certainty))
            return stressed

        return _WORD.sub(reading, text), found

    def _guesses(self, word: str, stressed: str, certainty: float) -> list[list[str]]:
        guesses = []
        if word.count(YE) > stressed.count(YE):
            guesses.append(["restored yo", word, stressed])
        if "+" in word or n_vowels(word) < 2:
            return guesses
        if "+" not in stressed:
            guesses.append(["no stress", word, stressed])
        elif word not in PARTICLES and YO not in word and not self._dictionary.word_is_known(word):
            guesses.append(["unknown word", word, stressed])
        elif certainty < SURE:
            guesses.append(["doubtful stress", word, stressed])
        return guesses

    def _remember_probabilities(self) -> None:
        """The model tells only its choice; how sure it is passes through this method."""
        predict = self._accentor._get_model_preds

        def remembered(words: list[str]) -> Any:
            outcome = predict(words)
            self._probabilities = outcome[0]
            return outcome

        self._accentor._get_model_preds = remembered

    def _read_words(self, words: Sequence[str]) -> None:
        for start in range(0, len(words), WORDS_AT_ONCE):
            some = words[start : start + WORDS_AT_ONCE]
            readings = self._accentor(" ".join(some), stress_single_vowel=False).split(" ")
            assert len(readings) == len(some)
            for i, (word, reading) in enumerate(zip(some, readings, strict=True)):
                # between two words the model sees the space as a token of its own
                certainty = 1.0 if word in self._accentor.exceptions else float(self._probabilities[2 * i].max())
                self._readings[word] = (reading, certainty)

    def _solve_homographs(self, texts: Sequence[str]) -> list[tuple[str, list[list[str]]]]:
        tagged = [(i, tag) for i, text in enumerate(texts) for tag in self._homographs._find_and_tag_homos(text)]
        tagged = [(i, tag) for i, tag in tagged if tag[4] is not None]
        choices = self._chosen([tag[3] for _, tag in tagged], [tag[4] for _, tag in tagged])
        solved: list[tuple[str, list[list[str]]]] = [(text, []) for text in texts]
        for (i, tag), choice in reversed(list(zip(tagged, choices, strict=True))):  # from the right: places stay
            if choice is None:
                continue
            start, end, word = tag[0], tag[1], tag[3]
            reading = choice if n_vowels(choice) > 1 else choice.replace("+", "")
            text, guesses = solved[i]
            solved[i] = (text[:start] + reading + text[end:], [["homograph", word, reading], *guesses])
        return solved

    def _chosen(self, words: Sequence[str], contexts: Sequence[str]) -> list[str | None]:
        """The reading of each homograph in its context: by a known phrase, else by the network."""
        choices: list[str | None] = [None] * len(words)
        for_network = []
        for i, (word, context) in enumerate(zip(words, contexts, strict=True)):
            phrases = self._homographs.compiled_phrases.get(word)
            choices[i] = self._homographs._predict_with_pattern(phrases, context) if phrases else None
            if choices[i] is None and word in self._homographs.homodict:
                for_network.append(i)
        encoded = {i: self._homographs.tokenizer(contexts[i]) for i in for_network}
        for_network.sort(key=lambda i: len(encoded[i]))  # little padding
        for start in range(0, len(for_network), HOMOGRAPH_BATCH):
            batch = for_network[start : start + HOMOGRAPH_BATCH]
            for i, second in zip(batch, self._second_reading([encoded[i] for i in batch]), strict=True):
                choices[i] = sorted(self._homographs.homodict[words[i]])[second]
        return choices

    def _second_reading(self, batch: Sequence[Sequence[int]]) -> list[int]:
        """For each context 0 or 1: which of the two readings, in alphabetical order."""
        import torch

        tokens = self._homographs.tokenizer
        ids = [torch.tensor(each) for each in batch]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=tokens.pad_token_id)
        starts = torch.tensor([list(each).index(tokens.homo_start_id) for each in batch])
        ends = torch.tensor([list(each).index(tokens.homo_end_id) for each in batch])
        with torch.no_grad():
            return (torch.sigmoid(self._homographs.model(padded, starts, ends)) > 0.5).int().flatten().tolist()


def n_vowels(word: str) -> int:
    return sum(letter in VOWELS for letter in word)


def _check_model() -> None:
    path = importlib.resources.files("silero_stress") / "data" / "accentor.pt"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != MODEL_SHA256:
        raise Refusal(
            f"{path} is not the model of silero-stress 1.5 (sha256 {found[:12]}..., not {MODEL_SHA256[:12]}...); it "
            "would run code of its own, so it is not loaded: pip install --force-reinstall silero-stress==1.5"
        )


def _dictionary() -> Any:
    import pymorphy3

    return pymorphy3.MorphAnalyzer(lang="ru")


def _normaliser() -> Any:
    from ru_normalizr import NormalizeOptions, Normalizer, roman_numerals

    # It builds ten constant patterns anew for every text, which takes two thirds of its time.
    roman_numerals.compile_scan = functools.cache(roman_numerals.compile_scan)
    # Nothing that is written is left out (remove_links), and single letters are not lengthened by tricks.
    options = NormalizeOptions.tts(
        remove_links=False,
        letter_vowel_mode="single",
        initials_pause_mode="preserve",
        enable_latinization_stress_marks=True,
    )
    return Normalizer(options)


def prepare(settings: dict[str, Any]) -> Answer:
    normaliser = _normaliser() if settings["normalise"] else None
    stresser = Stresser() if settings["stress"] else None

    def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
        texts = request["texts"]
        normalised = [normaliser.normalize(text) for text in texts] if normaliser else texts
        spelled = [_respelled(text, request["spellings"]) for text in normalised]
        stressed = stresser.stressed(spelled) if stresser else [(text.lower(), []) for text in spelled]
        return [
            {"normalised": text, "stressed": reading, "guesses": guesses}
            for text, (reading, guesses) in zip(normalised, stressed, strict=True)
        ]

    return answer


def _respelled(text: str, spellings: dict[str, str]) -> str:
    if not spellings:
        return text
    return _WORD.sub(lambda match: spellings.get(match[0].lower(), match[0]), text)


if __name__ == "__main__":
    sys.exit(serve(prepare))
