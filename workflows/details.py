"""What a person reads at the top of a run in the Temporal UI."""

import re

from plattr.steps import Progress

# Characters with a meaning in Markdown, anywhere in a line. https://spec.commonmark.org/0.31.2/#backslash-escapes
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#!|~:&])")


def describe_progress(name: str, progress: Progress) -> str:
    """Return the run's current details, in the UI's Markdown."""
    lines = [f"**{name}**: {progress.phase}"]
    if progress.done:
        lines.append("done: " + ", ".join(str(step) for step in progress.done))
    if progress.next_retry is not None:
        lines.append(f"waiting until {progress.next_retry:%Y-%m-%d %H:%M:%S} UTC to begin round {progress.round + 1}")
    elif progress.step is not None:
        waits = f", waits for {_quoted(progress.waiting_for)}" if progress.waiting_for else ""
        lines.append(f"now: {progress.step}{waits}")
    if progress.last_error is not None:
        lines.append(f"last error: {progress.last_error.reason}: {_quoted(progress.last_error.message)}")
    return "\n\n".join(lines)


def _quoted(text: str) -> str:
    """Escape a text for the UI. Part of it may come from a tenant, for example the answer of a webhook."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
