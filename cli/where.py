"""`plattr where`: print the addresses and command lines that lead to an object's resources."""

from typing import Annotated
from urllib.parse import quote

import typer

from cli.connection import Session, perform
from cli.environment import local_platform
from cli.objects import find
from cli.options import Name, Namespace
from cli.output import command, say
from plattr.naming import workflow_id
from plattr.objects import CustomObject, Kind


def where(
    name: Name,
    namespace: Namespace = "",
    ui: Annotated[
        str, typer.Option(help="The address of the Temporal UI. Default: that of the local platform, if it runs.")
    ] = "",
) -> None:
    """Print where to look: the runs in the Temporal UI, the object, its database."""

    async def work(session: Session) -> int:
        found = await find(session, name, namespace or session.default_namespace)
        lines = _lines(found, ui)
        width = max(len(label) for label, _ in lines)
        for label, line in lines:
            say(f"{label:{width}}  {line}")
        return 0

    perform(work)


def _lines(found: CustomObject, ui: str) -> list[tuple[str, str]]:
    reference, lines = found.reference, []
    platform = None if ui else local_platform()
    if platform is not None:
        lines.append(("first", f'eval "$({command()} infra environment)"'))
        ui = platform.temporal_ui
    if ui:
        query = quote(f'WorkflowId="{workflow_id(reference)}"')
        lines.append(("its runs", f"{ui}/namespaces/default/workflows?query={query}"))
    get = f"kubectl -n {reference.namespace} get"
    lines.append(("the object", f"{get} {reference.kind.lower()} {reference.name} -o yaml"))
    if reference.kind is Kind.PREVIEW:
        lines.append(("its workload", f"kubectl -n {found.status.get('namespace', '?')} get all"))
    elif found.spec.get("database", {}).get("enabled"):
        secret = f"{get} secret {reference.name}-db -o jsonpath='{{.data.DATABASE_URL}}' | base64 -d"
        lines.append(("its database", f'psql "$({secret})"'))
    return lines
