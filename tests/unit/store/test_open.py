"""The adapters that settings lead to."""

from contextlib import closing
from pathlib import Path

import pytest

from shared.core.settings import Settings
from shared.store.blobs import AzureBlobs
from shared.store.open import open_blobs, open_documents, open_queues
from shared.store.queues import AzureQueues
from shared.store.sqlite import SqliteDocuments

_ROOT = Path(__file__).parents[3]
KEY = "AccountName=one;AccountKey=c2VjcmV0;BlobEndpoint=https://b/one;QueueEndpoint=https://q/one"


@pytest.fixture
def by_key(tmp_path: Path) -> Settings:
    return Settings.from_env({"SLIPWAY_DOCUMENTS": f"sqlite:{tmp_path}/d.db", "SlipwayStorage": KEY})


@pytest.fixture
def by_identity() -> Settings:
    return Settings.from_env(
        {
            "SLIPWAY_DOCUMENTS": "https://one.documents.azure.com/",
            "SlipwayStorage__blobServiceUri": "https://one.blob.core.windows.net",
            "SlipwayStorage__queueServiceUri": "https://one.queue.core.windows.net",
            "SlipwayStorage__clientId": "00000000-0000-0000-0000-000000000001",
        }
    )


def test_sqlite_documents_open_the_named_file(by_key: Settings, tmp_path: Path) -> None:
    with closing(open_documents(by_key)) as documents:
        assert isinstance(documents, SqliteDocuments)
        assert (tmp_path / "d.db").exists()


def test_storage_opens_by_key(by_key: Settings) -> None:
    with closing(open_blobs(by_key)) as blobs, closing(open_queues(by_key)) as queues:
        assert isinstance(blobs, AzureBlobs)
        assert isinstance(queues, AzureQueues)
        assert blobs._service.url == "https://b/one/"
        assert queues._service.url == "https://q/one/"


def test_storage_opens_by_identity_without_asking_for_a_token(by_identity: Settings) -> None:
    with closing(open_blobs(by_identity)) as blobs, closing(open_queues(by_identity)) as queues:
        assert blobs._service.url == "https://one.blob.core.windows.net/"
        assert queues._service.url == "https://one.queue.core.windows.net/"
