"""Documents in Cosmos DB: the store in Azure.

The account's default consistency must be Strong, for the port promises that a write is visible to every process. The
database and its containers exist already: the data-plane role that the app holds cannot make them. Nothing here leans
on transactional batches: one document, one conditional write.

After UnavailableError from a write, the write may or may not have taken effect: load the document to learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError, ResourceNotFoundError

from shared.core.errors import AlreadyExistsError, ChangedMeanwhileError, NotFoundError
from shared.store.azure_errors import translated
from shared.store.documents import (
    SYSTEM_FIELDS,
    CheckedQuery,
    Where,
    checked_document,
    checked_keys,
    checked_query,
    continuation_after,
    from_double,
)
from shared.store.ports import PARTITION_KEY, Container, Page, Stored

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.cosmos import ContainerProxy

_SERVICE = "Cosmos DB"
_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 15
_THROTTLE_RETRIES = 5
_THROTTLE_WAIT_S = 10
_ABSENT_PARENT = 1003
"""The sub-status of a 404 that says that the container or database is absent, not the document."""


class CosmosDocuments:
    """The document port on a Cosmos DB database."""

    def __init__(
        self, url: str, *, database: str, credential: TokenCredential | str, certificates: str | None = None
    ) -> None:
        """Prepare a client of the account at `url`; it connects to read the account's properties.

        `credential` is a token credential; a key is for an emulator alone, and so is `certificates`, a PEM file that
        its certificate is checked against. Raises UnavailableError.
        """
        from azure.cosmos import CosmosClient  # noqa: PLC0415 - a cold start pays for it only where it is used
        from azure.cosmos.documents import SSLConfiguration  # noqa: PLC0415

        options: dict[str, Any] = {}
        if certificates is not None:
            trust = SSLConfiguration()
            trust.SSLCaCerts = certificates
            options["ssl_config"] = trust
        try:
            self._client = CosmosClient(
                url,
                credential,
                connection_timeout=_CONNECT_TIMEOUT_S,
                read_timeout=_READ_TIMEOUT_S,
                retry_throttle_total=_THROTTLE_RETRIES,
                retry_throttle_backoff_max=_THROTTLE_WAIT_S,
                # A write whose answer was lost is not sent again: its second try would meet its own first.
                retry_write=False,
                enable_compact_utf8_item_writes=True,
                **options,
            )
        except AzureError as error:
            raise translated(_SERVICE, error) from error
        database_client = self._client.get_database_client(database)
        self._containers: dict[Container, ContainerProxy] = {
            container: database_client.get_container_client(container.value) for container in Container
        }

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, container: Container, partition: str, document_id: str) -> Stored | None:
        """See DocumentStore.get."""
        checked_keys(container, partition, document_id)
        try:
            return _stored(self._containers[container].read_item(document_id, partition_key=partition))
        except ResourceNotFoundError as error:
            if _parent_is_absent(error):
                raise translated(_SERVICE, error) from error
            return None
        except AzureError as error:
            raise translated(_SERVICE, error) from error

    def create(self, container: Container, body: Mapping[str, Any]) -> Stored:
        """See DocumentStore.create."""
        document = checked_document(container, body)
        try:
            return _stored(self._containers[container].create_item(document.body))
        except ResourceExistsError as error:
            raise AlreadyExistsError(_named(container, document.partition, document.document_id)) from error
        except AzureError as error:
            raise translated(_SERVICE, error) from error

    def replace(self, container: Container, body: Mapping[str, Any], *, etag: str) -> Stored:
        """See DocumentStore.replace."""
        document = checked_document(container, body)
        named = _named(container, document.partition, document.document_id)
        try:
            return _stored(
                self._containers[container].replace_item(
                    document.document_id, document.body, etag=etag, match_condition=MatchConditions.IfNotModified
                )
            )
        except ResourceNotFoundError as error:
            if _parent_is_absent(error):
                raise translated(_SERVICE, error) from error
            raise NotFoundError(named) from error
        except HttpResponseError as error:
            if error.status_code == 412:
                raise ChangedMeanwhileError(named) from error
            raise translated(_SERVICE, error) from error
        except AzureError as error:
            raise translated(_SERVICE, error) from error

    def delete(self, container: Container, partition: str, document_id: str, *, etag: str) -> bool:
        """See DocumentStore.delete."""
        checked_keys(container, partition, document_id)
        try:
            self._containers[container].delete_item(
                document_id, partition_key=partition, etag=etag, match_condition=MatchConditions.IfNotModified
            )
        except ResourceNotFoundError as error:
            if _parent_is_absent(error):
                raise translated(_SERVICE, error) from error
            return False
        except HttpResponseError as error:
            if error.status_code == 412:
                raise ChangedMeanwhileError(_named(container, partition, document_id)) from error
            raise translated(_SERVICE, error) from error
        except AzureError as error:
            raise translated(_SERVICE, error) from error
        return True

    def query(
        self,
        container: Container,
        *,
        partition: str | None = None,
        where: Where | None = None,
        page_size: int = 100,
        continuation: str | None = None,
    ) -> Page:
        """See DocumentStore.query.

        Within a partition the position is the last id. Over all partitions it is the gateway's own token, for the
        gateway serves a plain filter over all partitions itself, and an ordered query it does not.
        """
        query = checked_query(
            container,
            partition=partition,
            where=where,
            page_size=page_size,
            continuation=continuation,
            position_parts=1,
        )
        try:
            return self._page_of_all(query) if partition is None else self._page_of(query, partition)
        except AzureError as error:
            raise translated(_SERVICE, error) from error

    def _page_of(self, query: CheckedQuery, partition: str) -> Page:
        conditions, parameters = _filter(query)
        conditions.append(f'c["{PARTITION_KEY[query.container]}"] = @partition')
        parameters.append({"name": "@partition", "value": partition})
        if query.position is not None:
            conditions.append("c.id > @after")
            parameters.append({"name": "@after", "value": query.position[0]})
        items = self._containers[query.container].query_items(
            f"SELECT * FROM c WHERE {' AND '.join(conditions)} ORDER BY c.id",  # noqa: S608 - checked names
            parameters=parameters,
            partition_key=partition,
            max_item_count=query.page_size + 1,
        )
        found = [_stored(item) for item in islice(items, query.page_size + 1)]
        page = found[: query.page_size]
        more = len(found) > query.page_size
        return Page(items=page, continuation=continuation_after(query, page[-1].body["id"]) if more else None)

    def _page_of_all(self, query: CheckedQuery) -> Page:
        conditions, parameters = _filter(query)
        pages = (
            self._containers[query.container]
            .query_items(
                "SELECT * FROM c" + (f" WHERE {' AND '.join(conditions)}" if conditions else ""),  # noqa: S608 - as above
                parameters=parameters,
                enable_cross_partition_query=True,
                max_item_count=query.page_size,
            )
            .by_page(query.position[0] if query.position else None)
        )
        # The gateway may end a page early, even an empty one, and say that there is more.
        for page in pages:
            items = [_stored(item) for item in page]
            token: str | None = pages.continuation_token  # type: ignore[attr-defined]
            if items or token is None:
                return Page(items=items, continuation=None if token is None else continuation_after(query, token))
        return Page(items=[], continuation=None)


def _filter(query: CheckedQuery) -> tuple[list[str], list[dict[str, object]]]:
    conditions = [f'c["{name}"] = @where{index}' for index, name in enumerate(query.where)]
    parameters: list[dict[str, object]] = [
        {"name": f"@where{index}", "value": value} for index, value in enumerate(query.where.values())
    ]
    return conditions, parameters


def _stored(item: Mapping[str, Any]) -> Stored:
    body = {name: from_double(value) for name, value in item.items() if name not in SYSTEM_FIELDS}
    return Stored(body=body, etag=item["_etag"])


def _parent_is_absent(error: ResourceNotFoundError) -> bool:
    return getattr(error, "sub_status", None) == _ABSENT_PARENT


def _named(container: Container, partition: str, document_id: str) -> str:
    return f"the document {document_id!r} in {container}/{partition}"
