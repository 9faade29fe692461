"""Addresses without what may be a secret in them: for messages, logs and files."""

import re
from urllib.parse import unquote, urlsplit

# any number of slashes and backslashes, as people mistype them; a drive of Windows is one letter. A value in quotes
# belongs to its query
_SCHEME = r"[A-Za-z][\w+.-]+:[/\\]+"
_QUOTED = r"'[^'\n]*'|\"[^\"\n]*\""
ADDRESS = re.compile(rf"(?P<scheme>{_SCHEME})(?P<rest>(?:[^\s'\"<>]|(?<==)(?:{_QUOTED}))*)")
# a password with spaces, quotes or brackets: all up to an @ before what may be a host
SPACED_LOGIN = re.compile(
    rf"({_SCHEME})[^\s/@:'\"<>?#]*:[^\n]{{0,100}}[\s'\"<>][^\n]{{0,100}}?@(?=[\w\[/])"
)
# what gives a secret away without an address around it: a user's password before a host, a value by its name as in
# `host=db password=...`, and the key of a Telegram bot, which its addresses hold in the path
LOGIN = re.compile(r"(?<![\w.\\@:*-])(?<![^/]/)[\w.%+-]+:[^\s'\"<>/\\@]+@(?=[\w\[])")
_VALUE = rf"(?:{_QUOTED}|(?:\\.|[^\s,;&'\"\])])+)"
NAMED = re.compile(
    r"(?i)(?<![?&])(\b\w*(?:passwor[dt]|passwd|pwd|secret|token|api_?key|access_?key|"
    rf"\u043f\u0430\u0440\u043e\u043b\u044c) ?= ?){_VALUE}"
)
WRITTEN = re.compile(rf"(?i)(\b(?:password|passwd|pwd|secret|api_?key): +|\bbearer +){_VALUE}")
BOT = re.compile(r"\b(bot)?\d{6,}(?::|%3[Aa])[A-Za-z][\w-]{9,}")
# settings that may hold no secret: of one that does nothing is shown, to where the next setting or its origin begins
SETTING = re.compile(r"(\b(?:mlflow_tracking_uri|dist_url)=)(?=[^\n,]*[@?#])[^\n]*?(?=,\w+=| \(|['\"]?$|\n)")
REST_OF_QUERY = re.compile(r"(?s)(://[^?#]*[?#]).*?(?=,\w+=|$)")
HIDDEN = "***"


def without_secrets(text: str) -> str:
    """Any address in a text without user, password, query and fragment; a password or key elsewhere, if it is named so.

    >>> without_secrets("at http://me:secret@host/x?key=secret: no answer")
    'at http://***@host/x?*** no answer'
    """
    text = SETTING.sub(rf"\1{HIDDEN}", text)
    text = SPACED_LOGIN.sub(rf"\1{HIDDEN}@", text)
    text = ADDRESS.sub(lambda match: match["scheme"] + _shown(match["rest"]), text)
    text = WRITTEN.sub(rf"\1{HIDDEN}", NAMED.sub(rf"\1{HIDDEN}", BOT.sub(HIDDEN, text)))
    return LOGIN.sub(f"{HIDDEN}@", text)


def argument_without_secrets(argument: str) -> str:
    """One argument of a command: an address in it ends where it ends, whatever spaces are in its query.

    >>> argument_without_secrets("--storage=mysql://host/db?password=my secret")
    '--storage=mysql://host/db?***'
    """
    return REST_OF_QUERY.sub(rf"\1{HIDDEN}", without_secrets(argument))


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
