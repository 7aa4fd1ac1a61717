"""The adapters under contract, each over the real thing: a SQLite file, the Cosmos DB emulator, Azurite."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from uuid import uuid4

import pytest

from local.azurite import Azurite
from shared.store.blobs import AzureBlobs
from shared.store.cosmos import CosmosDocuments
from shared.store.ports import PARTITION_KEY, Container, DocumentStore
from shared.store.queues import AzureQueues
from shared.store.sqlite import SqliteDocuments
from tests.emulators.cosmos import EMULATOR_KEY, CosmosEmulator, cosmos_emulator

type OpenDocuments = Callable[[], DocumentStore]
"""Opens another client of the same documents, as another process would; the fixture closes it."""


@pytest.fixture(scope="session")
def azurite_connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Azurite(log_path=tmp_path_factory.mktemp("azurite") / "azurite.log") as azurite:
        yield azurite.connection_string


@pytest.fixture(scope="session")
def cosmos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CosmosEmulator]:
    with cosmos_emulator(tmp_path_factory.mktemp("cosmos")) as emulator:
        yield emulator


@pytest.fixture(params=["sqlite", pytest.param("cosmos", marks=pytest.mark.cosmos)])
def open_documents(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenDocuments]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield lambda: stack.enter_context(closing(SqliteDocuments(tmp_path / "documents.db")))
        else:
            emulator: CosmosEmulator = request.getfixturevalue("cosmos")
            database = _new_database(emulator)
            yield lambda: stack.enter_context(closing(_cosmos_documents(emulator, database)))


@pytest.fixture
def documents(open_documents: OpenDocuments) -> DocumentStore:
    return open_documents()


@pytest.fixture
def blobs(azurite_connection: str) -> Iterator[AzureBlobs]:
    with closing(AzureBlobs.from_connection_string(azurite_connection)) as store:
        store.ensure_containers()
        yield store


@pytest.fixture
def queues(azurite_connection: str) -> Iterator[AzureQueues]:
    with closing(AzureQueues.from_connection_string(azurite_connection)) as sender:
        yield sender


def _cosmos_documents(emulator: CosmosEmulator, database: str) -> CosmosDocuments:
    return CosmosDocuments(emulator.url, database=database, credential=EMULATOR_KEY, certificates=emulator.certificates)


def _new_database(emulator: CosmosEmulator) -> str:
    """A database with the containers that Bicep makes in Azure."""
    from azure.cosmos import PartitionKey

    name = f"test-{uuid4().hex}"
    with closing(_cosmos_documents(emulator, name)) as documents:
        database = documents._client.create_database(name)
        for container in Container:
            database.create_container(container.value, PartitionKey(f"/{PARTITION_KEY[container]}"))
    return name
