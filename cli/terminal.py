"""What others have written, as it may reach a terminal: objects, Events, errors and marks of backends."""

from rich.markup import escape

from plattr.denials import printable


def plain(text: object) -> str:
    """Return a text so that Rich prints it and nothing else: neither as markup nor as a terminal's commands."""
    return escape(printable(str(text)))
