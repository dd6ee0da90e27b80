"""What a person reads at the top of a run in the Temporal UI."""

from plattr.steps import Progress


def describe_progress(name: str, progress: Progress) -> str:
    """Return the run's current details, in the UI's Markdown."""
    lines = [f"**{name}**: {progress.phase}"]
    if progress.done:
        lines.append("done: " + ", ".join(str(step) for step in progress.done))
    if progress.next_retry is not None:
        lines.append(f"waiting until {progress.next_retry:%Y-%m-%d %H:%M:%S} UTC to begin round {progress.round + 1}")
    elif progress.step is not None:
        waits = f", waits for {progress.waiting_for}" if progress.waiting_for else ""
        lines.append(f"now: {progress.step}{waits}")
    if progress.last_error is not None:
        lines.append(f"last error: {progress.last_error.reason}: {progress.last_error.message}")
    return "\n\n".join(lines)
