"""The plattr command: wiring only."""

import typer

from cli import control, explain, infra, preview, status
from cli.adopt import adopt
from cli.apply import apply
from cli.audit import audit
from cli.cleanup import cleanup
from cli.dev import dev
from cli.where import where

app = typer.Typer(
    name="plattr",
    help="Provision applications on Kubernetes: database, buckets, realm and workload from one object.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(apply)
app.command()(status.status)
app.command()(explain.explain)
app.command()(audit)
app.command()(where)
app.command()(control.resync)
app.command()(cleanup)
app.command()(adopt)
app.command()(control.pause)
app.command()(control.resume)
app.command()(dev)
app.add_typer(infra.app, name="infra")
app.add_typer(preview.app, name="preview")


if __name__ == "__main__":
    app()
