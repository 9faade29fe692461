"""Numbers, dates and abbreviations in words, by damga. Run as `python -m text.children.numbers`.

Settings: {"language": one of de, es, fr, it, tr}. Answer for each text: the text written out.
"""

import sys
from typing import Any

from text.children.serving import Answer, serve


def prepare(settings: dict[str, Any]) -> Answer:
    from damga import TextNormalizer

    normaliser = TextNormalizer(lang=settings["language"])
    return lambda request: [normaliser.normalize(text) for text in request["texts"]]


if __name__ == "__main__":
    sys.exit(serve(prepare))
