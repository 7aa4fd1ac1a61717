"""The adapters that the settings ask for. Only functions/_services.py, local/ and tests call these.

Each SDK is imported by the call that needs it, so that a function pays only for the stores it uses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from shared.core.settings import CosmosSettings, Settings, SqliteSettings, StorageByIdentity, StorageByKey

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from shared.store.blobs import AzureBlobs
    from shared.store.cosmos import CosmosDocuments
    from shared.store.queues import AzureQueues
    from shared.store.sqlite import SqliteDocuments


def open_documents(settings: Settings) -> SqliteDocuments | CosmosDocuments:
    """The document store; the caller closes it. Raises UnavailableError, IntegrityError, InvalidInputError."""
    match settings.documents:
        case SqliteSettings(path=path):
            from shared.store.sqlite import SqliteDocuments  # noqa: PLC0415

            return SqliteDocuments(path)
        case CosmosSettings(url=url, database=database, client_id=client_id):
            from shared.store.cosmos import CosmosDocuments  # noqa: PLC0415

            return CosmosDocuments(url, database=database, credential=_credential(client_id))


def open_blobs(settings: Settings) -> AzureBlobs:
    """The blob store; the caller closes it."""
    from shared.store.blobs import AzureBlobs  # noqa: PLC0415

    match settings.storage:
        case StorageByKey(connection_string=connection_string):
            return AzureBlobs.from_connection_string(connection_string)
        case StorageByIdentity(blob_url=blob_url, client_id=client_id):
            return AzureBlobs.from_credential(blob_url, _credential(client_id))


def open_queues(settings: Settings) -> AzureQueues:
    """The queue sender; the caller closes it."""
    from shared.store.queues import AzureQueues  # noqa: PLC0415

    match settings.storage:
        case StorageByKey(connection_string=connection_string):
            return AzureQueues.from_connection_string(connection_string)
        case StorageByIdentity(queue_url=queue_url, client_id=client_id):
            return AzureQueues.from_credential(queue_url, _credential(client_id))


def open_tokens(client_id: str | None) -> Callable[[str], Callable[[], str]]:
    """What gives, for a scope, a source of bearer tokens of the app's identity.

    The source raises UnavailableError where there is none to be had. Nothing connects before it is asked.
    """

    @cache
    def credential() -> TokenCredential:
        return _credential(client_id)

    def tokens_for(scope: str) -> Callable[[], str]:
        def token() -> str:
            from shared.store.azure_errors import azure_errors  # noqa: PLC0415

            with azure_errors("the app's identity"):
                return credential().get_token(scope).token

        return token

    return tokens_for


def _credential(client_id: str | None) -> TokenCredential:
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415

    if client_id is None:
        return DefaultAzureCredential()
    return DefaultAzureCredential(managed_identity_client_id=client_id)
