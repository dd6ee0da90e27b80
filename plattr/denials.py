"""What may be quoted of the API server's refusals: the words of admission, never the values that they repeat."""

import base64
import binascii
import json
import re
from collections.abc import Iterator

# A policy's own message has at most 5 kB. This many characters fit on a screen.
# https://github.com/kubernetes/apiserver/blob/master/pkg/apis/cel/config.go
QUOTE_LIMIT = 1000
# 6: shorter values are ordinary words (true, prod, 3000). A text without these words could not be read.
_WITHHELD_FROM = 6

# Matches only at the beginning, before anything that a tenant may have written. A value that the API server repeats may
# hold the same words.
# https://github.com/kubernetes/apiserver/blob/master/pkg/admission/errors.go
# https://github.com/kubernetes/apiserver/blob/master/pkg/admission/plugin/policy/validating/dispatcher.go
# https://github.com/kubernetes/apiserver/blob/master/pkg/admission/plugin/webhook/errors/statuserror.go
_DENIED = re.compile(
    r'(?:[a-z0-9.\-/]+(?: "[^"]*")? is forbidden: |admission webhook "[^"]+" (?:denied the request|does not support ))'
)
# After the webhook's name, the message quotes any answer of the webhook's server.
_UNREACHED = re.compile(r'Internal error occurred: (failed calling webhook "[^"]+")')


def denial(message: str, sent: object = None) -> str | None:
    """Return the text of a denial by policy, webhook, Pod Security, quota or rights; None when it is none of these.

    Args:
        message: the API server's message, or a controller's that quotes it.
        sent: what was to be written; its secrets and variables are withheld, because a policy's message may hold them.
    """
    if unreached := _UNREACHED.match(message):
        return one_line(unreached[1])
    if not _DENIED.match(message):
        return None
    for value in sorted(set(_values(sent)), key=len, reverse=True):
        message = message.replace(value, "(withheld)")
    return one_line(message)


def one_line(text: str, limit: int = QUOTE_LIMIT) -> str:
    """Return a text as one line of at most `limit` printable characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def printable(text: str) -> str:
    """Return a text with a blank for each unprintable character, since such a character could command a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _values(sent: object) -> Iterator[str]:
    """Yield the forms in which a message may hold what is kept in Secrets, ConfigMaps and variables."""
    for value in _kept(sent):
        decoded = _decoded(value)
        for form in (value, decoded, base64.b64encode(value.encode()).decode()):
            if len(form) >= _WITHHELD_FROM:
                yield form
                yield json.dumps(form)[1:-1]


def _kept(sent: object) -> Iterator[str]:
    if isinstance(sent, list):
        for each in sent:
            yield from _kept(each)
    elif isinstance(sent, dict):
        for name, part in sent.items():
            if name in ("data", "stringData", "binaryData") and isinstance(part, dict):
                yield from (value for value in part.values() if isinstance(value, str))
            elif name == "value" and isinstance(part, str) and ("name" in sent or "op" in sent):
                yield part
            else:
                yield from _kept(part)


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
