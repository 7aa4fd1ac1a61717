"""Settings: what they read, and that a bad one is named and no secret repeated."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from shared.core.errors import InvalidInputError
from shared.core.settings import CosmosSettings, Settings, SqliteSettings, StorageByIdentity, StorageByKey

KEY = "DefaultEndpointsProtocol=https;AccountName=one;AccountKey=c2VjcmV0"
ONE_MACHINE = {"SLIPWAY_DOCUMENTS": "sqlite:/state/documents.db", "SlipwayStorage": KEY}
AZURE = {
    "SLIPWAY_DOCUMENTS": "https://one.documents.azure.com/",
    "SlipwayStorage__blobServiceUri": "https://one.blob.core.windows.net",
    "SlipwayStorage__queueServiceUri": "https://one.queue.core.windows.net",
    "SlipwayStorage__credential": "managedidentity",
}


def test_one_machine() -> None:
    settings = Settings.from_env(ONE_MACHINE)
    assert settings.documents == SqliteSettings(path=Path("/state/documents.db"))
    assert settings.storage == StorageByKey(connection_string=KEY)


def test_azure_with_the_systems_identity() -> None:
    settings = Settings.from_env(AZURE)
    assert settings.documents == CosmosSettings(
        url="https://one.documents.azure.com/", database="slipway", client_id=None
    )
    assert settings.storage == StorageByIdentity(
        blob_url="https://one.blob.core.windows.net", queue_url="https://one.queue.core.windows.net", client_id=None
    )


def test_azure_with_a_users_identity_and_another_database() -> None:
    settings = Settings.from_env(AZURE | {"SlipwayStorage__clientId": "an-id", "SLIPWAY_COSMOS_DATABASE": "other"})
    assert isinstance(settings.documents, CosmosSettings)
    assert (settings.documents.client_id, settings.documents.database) == ("an-id", "other")
    assert isinstance(settings.storage, StorageByIdentity)
    assert settings.storage.client_id == "an-id"


def test_settings_do_not_change_and_do_not_show_the_key() -> None:
    settings = Settings.from_env(ONE_MACHINE)
    with pytest.raises(FrozenInstanceError):
        settings.documents = SqliteSettings(path=Path("/x"))  # type: ignore[misc]
    assert "c2VjcmV0" not in repr(settings)


def test_outer_spaces_do_not_count() -> None:
    padded = {name: f"  {value} \n" for name, value in ONE_MACHINE.items()}
    assert Settings.from_env(padded) == Settings.from_env(ONE_MACHINE)


@pytest.mark.parametrize("name", ["SLIPWAY_DOCUMENTS", "SlipwayStorage"])
@pytest.mark.parametrize("absence", [None, "", "  "])
def test_an_absent_setting_is_named(name: str, absence: str | None) -> None:
    env = {key: value for key, value in ONE_MACHINE.items() if key != name}
    if absence is not None:
        env[name] = absence
    with pytest.raises(InvalidInputError, match=f"the setting {name} is absent"):
        Settings.from_env(env)


@pytest.mark.parametrize("name", ["SlipwayStorage__blobServiceUri", "SlipwayStorage__queueServiceUri"])
def test_half_of_a_pair_names_the_other_half(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"the setting {name} is absent"):
        Settings.from_env({key: value for key, value in AZURE.items() if key != name})


@pytest.mark.parametrize(
    "documents",
    [
        "sqlite:relative.db",
        "sqlite:",
        "sqlite:/a/directory/",
        "sqlite:///",
        "/state/documents.db",
        "postgres://one/two",
        "http://one.documents.azure.com/",
        "https://",
        "https:one",
        "https://one:bad/",
        "https://user:secret@one/",
        "https://one/?key=1",
        "https://[::1",
    ],
)
def test_documents_of_another_form_are_refused(documents: str) -> None:
    with pytest.raises(InvalidInputError, match="the setting SLIPWAY_DOCUMENTS is"):
        Settings.from_env(ONE_MACHINE | {"SLIPWAY_DOCUMENTS": documents})


@pytest.mark.parametrize("name", ["SlipwayStorage__blobServiceUri", "SlipwayStorage__queueServiceUri"])
@pytest.mark.parametrize("url", ["one.blob.core.windows.net", "http://one.blob.core.windows.net", "https://"])
def test_a_storage_endpoint_of_another_form_is_refused(name: str, url: str) -> None:
    with pytest.raises(InvalidInputError, match=f"the setting {name} is"):
        Settings.from_env(AZURE | {name: url})


@pytest.mark.parametrize(
    "text",
    [
        "nonsense-with-secret",
        "AccountKey=secret",
        "AccountName=;AccountKey=secret",
        "=secret",
        "AccountName=one;secret",
        "BlobEndpoint=https://b/secret",
    ],
)
def test_what_is_no_connection_string_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidInputError, match="the setting SlipwayStorage is not a storage connection") as caught:
        Settings.from_env(ONE_MACHINE | {"SlipwayStorage": text})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "UseDevelopmentStorage=true",
        "BlobEndpoint=https://b/;QueueEndpoint=https://q/;SharedAccessSignature=sv=1&sig=x%3D",
        "AccountName=one;AccountKey=a==;BlobEndpoint=http://127.0.0.1:1/one;QueueEndpoint=http://127.0.0.1:2/one;",
    ],
)
def test_any_form_of_connection_string_is_taken(text: str) -> None:
    assert Settings.from_env(ONE_MACHINE | {"SlipwayStorage": text}).storage == StorageByKey(connection_string=text)


@pytest.mark.parametrize(("text", "seconds"), [(None, 600.0), ("", 600.0), ("2.5", 2.5)])
def test_the_sweeps_grace_has_a_default(text: str | None, seconds: float) -> None:
    env = ONE_MACHINE if text is None else ONE_MACHINE | {"SLIPWAY_SWEEP_GRACE_S": text}
    assert Settings.from_env(env).sweep_grace_s == seconds


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_a_grace_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="the setting SLIPWAY_SWEEP_GRACE_S is"):
        Settings.from_env(ONE_MACHINE | {"SLIPWAY_SWEEP_GRACE_S": text})
