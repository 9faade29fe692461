"""What to record next, as a page to print or a plain text: one numbered sentence a line."""

import html
import re
from collections.abc import Sequence

from corpus.coverage import Coverage, Suggestion

_SENTENCE = re.compile(r"[^.!?\u2026]+(?:[.!?\u2026]+[\"')\u00bb\u201d\u2019]*|$)")
SHOWN_GAPS = 40
COMMON = 5  # occurrences; what is rarer is a gap


def sentences_of(text: str) -> list[str]:
    """Sentences of a running text, or of a text with one a line, without those that can't be read aloud as they are."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text) if "\n\n" in text else text.splitlines():
        for sentence in _SENTENCE.findall(" ".join(paragraph.split())):
            plain = sentence.strip()
            if any(char.isalpha() for char in plain) and not any(char.isdigit() or char in "|<>{}_" for char in plain):
                found.append(plain)
    return list(dict.fromkeys(found))


def gaps(coverage: Coverage) -> list[str]:
    """In words, which symbols and pairs are rare, and which endings are missing."""
    said = []
    for kind, name in (("symbol", "symbols"), ("pair", "pairs of symbols (# is the edge of a word)")):
        rare = coverage.rare(kind, below=COMMON)
        if rare:
            shown = ", ".join(f"{unit} x{n}" for unit, n in rare[:SHOWN_GAPS])
            more = f" and {len(rare) - SHOWN_GAPS} more" if len(rare) > SHOWN_GAPS else ""
            said.append(f"{len(rare)} of {len(coverage.of(kind))} {name} occur less than {COMMON} times: {shown}{more}")
    endings = coverage.of("ending")
    said += [f"no {ending} yet" for ending in ("question", "exclamation") if not endings[ending]]
    return said


def sheet_text(suggestions: Sequence[Suggestion]) -> str:
    """One numbered sentence a line."""
    return "".join(f"{i:04d}|{suggestion.text}\n" for i, suggestion in enumerate(suggestions, start=1))


def sheet_html(suggestions: Sequence[Suggestion], *, title: str) -> str:
    """A page to print, with large letters and a box to tick."""
    rows = "\n".join(
        f"<li><p>{html.escape(suggestion.text)}</p><small>{html.escape(' '.join(suggestion.adds[:12]))}</small></li>"
        for suggestion in suggestions
    )
    return f"""<!DOCTYPE html>
<html><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
body {{ font: 20px/1.5 Georgia, serif; margin: 0 auto; padding: 16px; max-width: 46em; }}
li {{ break-inside: avoid; padding: 6px 0; border-bottom: 1px solid #ccc; overflow-wrap: anywhere; }}
p {{ margin: 0; }} small {{ color: #666; font: 12px ui-monospace, monospace; }}
h1 {{ font-size: 1.2em; }}
</style></head><body>
<h1>{html.escape(title)}</h1>
<ol>
{rows}
</ol>
</body></html>
"""
