"""`plattr audit`: report what exists without an owner, and what an owner lacks."""

import os
import sys

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from cli.auditing.auditor import AuditReport, audit_what_answers
from cli.environment import settings
from cli.terminal import plain
from plattr.denials import printable
from plattr.errors import PlattrError

EXIT_FINDINGS = 1
# Not 1, because a backend that was not asked says nothing about what it holds.
EXIT_FAILED = 2
# Text in a pipe is not folded, because the next program needs whole words.
PIPE_WIDTH = 240


def audit() -> None:
    """Report what exists without an owner and what an owner lacks; never delete anything.

    Needs the worker's settings. Exit code 0: no findings. 1: findings. 2: a backend did not answer; a line names what
    was not checked, and the findings are those of the other backends. Without Kubernetes there are no findings.
    """
    try:
        environment = dict(settings())
        # This address is S3's. botocore would also use it for Secrets Manager and STS.
        os.environ.pop("AWS_ENDPOINT_URL", None)
        report = audit_what_answers(environment)
    except PlattrError as error:
        sys.stderr.write(f"{printable(str(error))}\n")
        raise typer.Exit(EXIT_FAILED) from None
    console = Console()
    show(report, console if console.is_terminal else Console(width=PIPE_WIDTH))
    for each in report.unasked:
        sys.stderr.write(f"{each.cause}; not looked at: {each.part}\n")
    if report.unasked:
        raise typer.Exit(EXIT_FAILED)
    if report.findings:
        raise typer.Exit(EXIT_FINDINGS)


def show(report: AuditReport, console: Console) -> None:
    """Print the findings, what their words mean, and how much was checked."""
    if report.findings:
        table = Table(box=box.SIMPLE)
        for column in ("finding", "what", "owner", "detail"):
            table.add_column(column, overflow="fold", no_wrap=column == "finding")
        for finding in report.findings:
            table.add_row(
                f"[red]{finding.problem}[/]", *map(plain, (str(finding.thing), finding.owner, finding.detail))
            )
        console.print(table)
        for problem in dict.fromkeys(finding.problem for finding in report.findings):
            console.print(f"{problem}: {problem.meaning}", highlight=False)
    for cluster, count in sorted(report.elsewhere.items()):
        console.print(
            f"{count} things belong to cluster {plain(cluster)} and are not judged; never delete them from here",
            highlight=False,
        )
    counts = ", ".join(f"{count} {kind}" for kind, count in report.counts.items() if count)
    console.print(
        f"{len(report.findings)} findings; {report.settled} of {report.objects} objects judged (the others are not"
        f" Running, or changed meanwhile); seen: {counts or 'nothing'}",
        highlight=False,
    )
