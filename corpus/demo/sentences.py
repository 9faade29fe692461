"""What the demo voice says: 720 short sentences from 20 templates over a closed vocabulary.

A small model learns to speak such a corpus in minutes because every word returns dozens of times; the held-out
sentences are new combinations of known words, so they ask for reading and not for memory.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

SEED = 2017  # the year of the Tacotron 2 paper; any other number would do
TRAINING_PER_TEMPLATE = 30  # 20 templates: 600 sentences, about a quarter of an hour of speech
TEST_PER_TEMPLATE = 5

SLOTS: dict[str, tuple[str, ...]] = {
    "animal": ("dog", "cat", "horse", "rabbit", "monkey", "tiger"),
    "city": ("London", "Paris", "Boston", "Madrid", "Chicago"),
    "colour": ("red", "blue", "green", "yellow", "black", "white", "brown"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "food": ("coffee", "bread", "honey", "sugar", "water", "milk", "cheese"),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve"),
    "object": ("box", "door", "window", "table", "mirror", "basket", "lamp"),
    "person": ("Anna", "Sarah", "Maria", "David"),
    "place": ("garden", "kitchen", "river", "station", "school", "market"),
    "side": ("left", "right"),
    "things": ("apples", "books", "chairs", "flowers", "pencils"),
    "verb": ("open", "close", "move", "find", "paint"),
    "weather": ("sunny", "cloudy", "rainy", "windy"),
    "when": ("today", "tonight", "tomorrow"),
}

# Each template allows at least 36 sentences, and as many are drawn from each.
TEMPLATES: tuple[str, ...] = (
    "the {colour} {animal} is in the {place}",
    "I saw a {colour} {animal} near the {place}",
    "the {animal} likes {food}",
    "I have {food} for the {animal}",
    "{city} will be {weather} on {day}",
    "{city} is {weather} {when}",
    "{day} was {weather} and {weather}",
    "please {verb} the {colour} {object}",
    "{verb} the {object} on {day}",
    "{person} will {verb} the {object}",
    "my {object} is {colour}",
    "leave the {object} near the {object}",
    "we have {number} {colour} {things}",
    "{number} {things} and {number} {things}",
    "{person} wants {number} {things}",
    "{person} likes {colour} {things}",
    "{person} will be in {city} {when}",
    "the train to {city} leaves at {number}",
    "turn {side} at the {place} {when}",
    "we need {food} and {food}",
)


@dataclass(frozen=True)
class DemoSentences:
    """Disjoint splits: train on the first, tune on the second, look at the third once."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return self.training + self.validation + self.test


def demo_sentences() -> DemoSentences:
    """600 training, 20 validation and 100 test sentences, the same ones on every machine.

    Validation holds one sentence of each template, the test five: with fewer, one misheard sentence moves the word
    error rate by several points. Every sentence ends in a full stop, which gives the stop gate something to recognise.
    """
    rng = random.Random(SEED)
    drawn = [_draw_distinct(template, TRAINING_PER_TEMPLATE + 2, rng=rng) for template in TEMPLATES]
    further = [
        _draw_distinct(template, len(known) + TEST_PER_TEMPLATE - 1, rng=rng, known=known)[len(known) :]
        for template, known in zip(TEMPLATES, drawn, strict=True)
    ]
    rounds = list(zip(*drawn, strict=True))  # round k holds the k-th sentence of every template
    training = tuple(sentence for sentences in rounds[:-2] for sentence in sentences)
    test = rounds[-1] + tuple(sentence for sentences in zip(*further, strict=True) for sentence in sentences)
    return DemoSentences(training, validation=rounds[-2], test=test)


def _draw_distinct(template: str, count: int, *, rng: random.Random, known: Sequence[str] = ()) -> list[str]:
    """`known`, then new sentences up to `count`, in the order of drawing."""
    found = dict.fromkeys(known)
    while len(found) < count:
        found[_fill(template, rng=rng)] = None
    return list(found)


def _fill(template: str, *, rng: random.Random) -> str:
    used: set[str] = set()

    def draw(slot: re.Match[str]) -> str:
        words = [word for word in SLOTS[slot[1]] if word not in used]
        # random() is the only draw that Python promises to keep the same from version to version.
        word = words[int(rng.random() * len(words))]
        used.add(word)
        return word

    sentence = re.sub(r"\{(\w+)\}", draw, template) + "."
    return sentence[0].upper() + sentence[1:]
