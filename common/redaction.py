"""Addresses without what may be a secret in them: for messages, logs and files."""

import re
from urllib.parse import unquote, urlsplit

ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)(?P<rest>[^\s'\"<>]*)")
HIDDEN = "***"


def without_secrets(text: str) -> str:
    """Any address in a text without user, password, query and fragment.

    >>> without_secrets("at http://me:secret@host/x?key=secret: no answer")
    'at http://***@host/x?*** no answer'
    """
    return ADDRESS.sub(lambda match: match["scheme"] + _shown(match["rest"]), text)


def _shown(rest: str) -> str:
    """Of what follows the scheme. A password may hold any character, so all up to the last @ counts as user's."""
    before, at, place = rest.rpartition("@")
    plain = re.match(r"[^?#]*", place)
    assert plain is not None
    end = place[plain.end() :][:1]  # what begins the query or the fragment
    return (HIDDEN + at if before else "") + plain[0] + (end + HIDDEN if end else "")


def hide_address(text: str, address: str) -> str:
    """A text about an address, such as an error, in which nothing but its scheme, host and port is left of it."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return without_secrets(text)
    secrets = [parts.username, parts.password, parts.query, parts.fragment, parts.path.strip("/")]
    for secret in sorted({*filter(None, secrets), *(unquote(one) for one in secrets if one)}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return without_secrets(text)
