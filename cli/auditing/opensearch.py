"""Which indices OpenSearch has. An index does not name its owner, so the claims tell who owns each prefix."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from cli.auditing.inventory import AuditFailed, Found, Thing, ThingKind
from plattr.settings import Settings

_SECONDS = 20


class OpenSearchListing:
    """Ask one cluster as its admin."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.opensearch_admin_url

    def found(self, claims: Iterable[Found]) -> list[Found]:
        """Return every index and data stream; none if the platform does not manage OpenSearch."""
        if self._url is None:
            return []
        owners = {claim.thing.name: claim.owner for claim in claims if claim.thing.scope == "search"}
        names = [index["index"] for index in self._get("_cat/indices?format=json&h=index&expand_wildcards=all")]
        names += [stream["name"] for stream in self._get("_data_stream")["data_streams"]]
        # A prefix contains no hyphen, and a hyphen follows it.
        return [
            Found(thing=Thing(kind=ThingKind.INDEX, name=name), owner=owners.get(name.partition("-")[0]))
            for name in names
        ]

    def _get(self, path: str) -> Any:
        assert self._url is not None  # noqa: S101  found() has looked
        address = urlsplit(self._url.get_secret_value())
        place = f"{address.scheme}://{address.hostname}" + (f":{address.port}" if address.port else "")
        login = (unquote(address.username), unquote(address.password or "")) if address.username else None
        try:
            with httpx.Client(auth=login, timeout=_SECONDS) as http:
                url = f"{place}{address.path.rstrip('/')}/{path}"
                try:
                    answer = http.get(url)
                except httpx.TransportError:
                    # Once more: on the local platform the first connection starts OpenSearch, and is then closed.
                    answer = http.get(url)
                return answer.raise_for_status().json()
        except httpx.HTTPStatusError as error:
            raise AuditFailed(f"cannot list the indices of OpenSearch: {error.response.status_code}") from None
        except (httpx.HTTPError, ValueError) as error:
            raise AuditFailed(f"cannot list the indices of OpenSearch: {type(error).__name__}") from None
