"""Where storage is and who the server is to it: connection strings, and identities against a service with TLS."""

import json
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from aks_serving.settings import Settings
from aks_serving.storage import open_storage
from aks_serving.storage_access import Access, access
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ResourceTypes,
    generate_account_sas,
)

from shared.core.errors import InvalidInputError, UnavailableError
from tests.serving.http.conftest import certificate
from tests.serving.scripted_storage import response, scripted

_KEY = "AccountName=acme;AccountKey=a2V5"
_EMPTY = b'<?xml version="1.0"?><EnumerationResults><Blobs></Blobs><NextMarker/></EnumerationResults>'


def _settings(*, connection: str | None = None, url: str | None = None) -> Settings:
    return Settings(storage_connection=connection, blob_url=url, cache_dir=Path("unused"), pod="pod")


def _found(connection: str) -> Access:
    return access(_settings(connection=connection))


@pytest.mark.parametrize(
    ("connection", "endpoint", "account", "allow_http"),
    [
        (_KEY, "https://acme.blob.core.windows.net", "acme", False),
        (f"{_KEY};EndpointSuffix=core.chinacloudapi.cn", "https://acme.blob.core.chinacloudapi.cn", "acme", False),
        (f"DefaultEndpointsProtocol=http;{_KEY}", "http://acme.blob.core.windows.net", "acme", True),
        (f"{_KEY};BlobEndpoint=http://[::1]:10000/acme/;", "http://[::1]:10000/acme", "acme", True),
        (f"{_KEY};BlobEndpoint=https://blobs.example", "https://blobs.example", "acme", False),
        (" accountname = acme ; ACCOUNTKEY=a2V5 ;", "https://acme.blob.core.windows.net", "acme", False),
        (
            "BlobEndpoint=https://acme.blob.example/;SharedAccessSignature=?s=1",
            "https://acme.blob.example",
            "acme",
            False,
        ),
    ],
)
def test_a_connection_string_says_where_the_account_is(
    connection: str,
    endpoint: str,
    account: str,
    allow_http: bool,  # noqa: FBT001 - a parameter of the test's table
) -> None:
    found = _found(connection)
    assert (found.config["endpoint"], found.config["account_name"]) == (endpoint, account)
    assert found.allow_http is allow_http


@pytest.mark.parametrize(
    ("connection", "told"),
    [
        ("rubbish", "not a connection string"),
        ("AccountKey=a2V5", "neither AccountName nor BlobEndpoint"),
        ("AccountName=acme", "neither AccountKey nor SharedAccessSignature"),
        ("BlobEndpoint=https://acme.example;AccountKey=a2V5", "without AccountName"),
        ("AccountName=acme;AccountKey=c2VjcmV0%", "not Base64"),
        ("AccountName=ac/me;AccountKey=c2VjcmV0", "ac/me"),
        (f"{_KEY};BlobEndpoint=ftp://acme.example", "ftp://acme.example"),
        (f"{_KEY};BlobEndpoint=https://acme.example:port", "no URL"),
        (f"{_KEY};BlobEndpoint=https://", "https://"),
        (f"{_KEY};DefaultEndpointsProtocol=gopher", "gopher"),
    ],
)
def test_a_connection_string_that_cannot_be_used_is_refused_by_name_and_its_key_not_told(
    connection: str, told: str
) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(told)) as caught:
        open_storage(_settings(connection=connection))
    assert "SLIPWAY_STORAGE_CONNECTION" in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://acme.blob.core.windows.net", "acme", "https://", "https://acme.example:x"])
def test_a_url_that_is_no_account_or_has_no_tls_is_refused_by_name(url: str) -> None:
    with pytest.raises(InvalidInputError, match="SLIPWAY_BLOB_URL"):
        open_storage(_settings(url=url))


@pytest.mark.parametrize(
    "url",
    [
        "https://acme.blob.core.windows.net?sv=2024&sig=c2VjcmV0",
        "https://acme.blob.core.windows.net#c2VjcmV0",
        "http://acme.blob.core.windows.net/?sig=c2VjcmV0",
        "https://user:c2VjcmV0@acme.blob.core.windows.net",
        "https://:c2VjcmV0@acme.blob.core.windows.net",
        "https://user:c2VjcmV0@acme.example:c2VjcmV0",
        "https://acme.example:c2VjcmV0@x",
        "https://user:c2VjcmV0//@acme.example",
        "user:c2VjcmV0@acme.example",
        "https://acme.example:1?sig=c2VjcmV0@x",
        "https://acme:c2VjcmV0.blob.core.windows.net",
        "https://acme.blob.core.windows.net/&sig=c2VjcmV0",
        "https://acme.blob.core.windows.net/%3Fsig=c2VjcmV0",
        "https://acme.blob.core.windows.net/c2VjcmV0/c2VjcmV0",
        "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=c2VjcmV0==",
        "sv=2024&sig=c2VjcmV0",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_told(url: str) -> None:
    for settings in (_settings(url=url), _settings(connection=f"{_KEY};BlobEndpoint={url}")):
        with pytest.raises(InvalidInputError) as caught:
            open_storage(settings)
        assert "c2VjcmV0" not in str(caught.value)
        assert caught.value.__cause__ is None
    with pytest.raises(InvalidInputError, match="SLIPWAY_STORAGE_CONNECTION, as AccountKey or SharedAccessSignature"):
        open_storage(_settings(url="https://acme.blob.core.windows.net?sig=c2VjcmV0"))


@pytest.mark.parametrize(
    ("env", "credential"),
    [
        ({}, "managed_identity"),
        ({"AZURE_FEDERATED_TOKEN_FILE": "/var/run/token"}, "workload_identity"),
        ({"AZURE_FEDERATED_TOKEN_FILE": "/var/run/token", "AZURE_CLIENT_SECRET": "s"}, "client_secret"),
        ({"AZURE_USE_AZURE_CLI": "true"}, "azure_cli"),
    ],
)
def test_an_identity_is_found_as_azure_libraries_find_it(env: Mapping[str, str], credential: str) -> None:
    found = access(_settings(url="https://acme.blob.core.windows.net"), env)
    assert found.config["credential_type"] == credential
    assert not found.allow_http


def test_a_signature_of_azure_opens_the_account(unused_accounts: Iterator[str]) -> None:
    connection = next(unused_accounts)
    with BlobServiceClient.from_connection_string(connection) as service:
        service.create_container("routes")
        service.get_blob_client("routes", "churn.json").upload_blob(b"plan")
        signature = generate_account_sas(
            str(service.account_name),
            account_key=service.credential.account_key,
            resource_types=ResourceTypes(container=True, object=True),
            permission=AccountSasPermissions(read=True, list=True),
            expiry="2099-01-01T00:00:00Z",
        )
        url = f"BlobEndpoint={service.primary_endpoint};SharedAccessSignature="
    assert list(open_storage(_settings(connection=url + signature)).plan_etags()) == ["churn"]
    with pytest.raises(UnavailableError, match=r"Authenticat|Authoriz"):
        open_storage(_settings(connection=url + signature.replace("sig=", "sig=A"))).plan_etags()


def test_other_programs_variables_change_nothing(
    unused_accounts: Iterator[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = next(unused_accounts)
    with BlobServiceClient.from_connection_string(connection) as service:
        service.create_container("routes")
    for name, value in {
        "AZURE_STORAGE_ACCOUNT_NAME": "other",
        "AZURE_STORAGE_ACCOUNT_KEY": "b3RoZXI=",
        "AZURE_STORAGE_SAS_TOKEN": "sig=other",
        "AZURE_STORAGE_TOKEN": "other",
        "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:1",
        "AZURE_STORAGE_USE_EMULATOR": "true",
        "AZURE_SKIP_SIGNATURE": "true",
        "AZURE_CONTAINER_NAME": "other",
    }.items():
        monkeypatch.setenv(name, value)
    assert open_storage(_settings(connection=connection)).plan_etags() == {}


class Entra:
    """A service that gives tokens to whoever asks as the federation wants it, and blobs to the bearer of one."""

    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []

    def __call__(self, conn: socket.socket, request: bytes) -> None:
        head, _, body = request.decode().partition("\r\n\r\n")
        if head.startswith("POST /tenant/oauth2/v2.0/token "):
            self.asked.append(parse_qs(body))
            token = {"access_token": "granted", "expires_in": 3600, "token_type": "Bearer"}
            conn.sendall(response(json.dumps(token).encode()))
        elif head.startswith("GET /routes?") and "authorization: bearer granted" in head.lower():
            conn.sendall(response(_EMPTY))
        else:
            conn.sendall(response(status="403 Forbidden"))


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A certificate that this process trusts."""
    cert, key = certificate(tmp_path, "storage")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    return context


def test_a_pods_workload_identity_gets_one_token_and_shows_it(
    tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entra = Entra()
    (tmp_path / "token").write_text("federated")
    with scripted(entra, tls) as service:
        # As AKS sets them, the slash included.
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"{service.url}/")
        monkeypatch.setenv("AZURE_TENANT_ID", "tenant")
        monkeypatch.setenv("AZURE_CLIENT_ID", "client")
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
        storage = open_storage(_settings(url=service.url))
        assert storage.plan_etags() == {}
        assert storage.plan_etags() == {}
    [asked] = entra.asked
    assert asked["client_assertion"] == ["federated"]
    assert (asked["client_id"], asked["scope"]) == (["client"], ["https://storage.azure.com/.default"])


def test_an_identity_that_is_refused_is_unavailable_and_its_token_not_told(
    tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("federated")
    refused = response(b'{"error": "invalid_client"}', status="401 Unauthorized")
    with scripted(lambda conn, _: conn.sendall(refused), tls) as service:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", service.url)
        monkeypatch.setenv("AZURE_TENANT_ID", "tenant")
        monkeypatch.setenv("AZURE_CLIENT_ID", "client")
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
        with pytest.raises(UnavailableError, match=r"401|invalid_client") as caught:
            open_storage(_settings(url=service.url)).plan_etags()
    assert "federated" not in str(caught.value)


def test_a_machines_managed_identity_asks_the_machine(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    token = {"access_token": "granted", "expires_on": "4102444800", "token_type": "Bearer", "resource": "storage"}

    def machine(conn: socket.socket, _: bytes) -> None:
        conn.sendall(response(json.dumps(token).encode()))

    with scripted(machine) as metadata, scripted(Entra(), tls) as service:
        monkeypatch.setenv("AZURE_MSI_ENDPOINT", f"{metadata.url}/metadata/identity/oauth2/token")
        for name in ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_SECRET", "AZURE_USE_AZURE_CLI"):
            monkeypatch.delenv(name, raising=False)
        assert open_storage(_settings(url=service.url)).plan_etags() == {}
        [asked] = metadata.requests
    assert b"metadata: true" in asked.lower()
