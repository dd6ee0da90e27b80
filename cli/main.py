"""The plattr command: wiring only."""

import typer

from cli.lazy import LazyCommand, LazyGroup


class Plattr(LazyGroup):
    """The commands of `plattr`, in the order of its help."""

    COMMANDS = (
        LazyCommand("apply", "Create or update Applications, PreviewEnvironments and their Namespaces from a file."),
        LazyCommand("status", "Show the phase, the address and the conditions of one object, or of all."),
        LazyCommand(
            "explain", "Show where the run of an object stands: step, attempt, last error, next retry, retained data."
        ),
        LazyCommand("audit", "Report what exists without an owner and what an owner lacks; never delete anything."),
        LazyCommand("where", "Print where to look: the runs in the Temporal UI, the object, its database."),
        LazyCommand(
            "resync",
            "Run every step of an object again, also when nothing has changed; retries a failed run now.",
            target="cli.control:resync",
        ),
        LazyCommand("cleanup", "Delete an object and everything it owns, or what a deleted object has left behind."),
        LazyCommand("adopt", "Take over what has an object's names and belongs to another owner, or to none."),
        LazyCommand(
            "pause",
            "Pause an object: Plattr changes nothing for it, and still cleans up when it is deleted.",
            target="cli.control:pause",
        ),
        LazyCommand("resume", "Resume a paused object.", target="cli.control:resume"),
        LazyCommand(
            "dev",
            "Start the local platform with worker and watcher, print its addresses, stop it on Ctrl-C.",
            extra="dev",
        ),
        LazyCommand("infra", "Manage the services of the local platform.", target="cli.infra:app", extra="dev"),
        LazyCommand("preview", "Manage the environments of pull requests.", target="cli.preview:app"),
    )


app = typer.Typer(
    name="plattr",
    cls=Plattr,
    help="Provision applications on Kubernetes: database, buckets, realm and workload from one object.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def plattr() -> None:
    """Hold the commands together; Typer wants a function for it."""


if __name__ == "__main__":
    app()
