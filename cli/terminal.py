"""Make text from objects, Events, errors and backends safe for a terminal."""

from rich.markup import escape

from plattr.denials import printable


def plain(text: object) -> str:
    """Return a text that Rich prints literally: neither as markup nor as terminal control characters."""
    return escape(printable(str(text)))
