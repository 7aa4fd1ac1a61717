"""The REST client of blob storage: against Azurite, and against services that misbehave."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from aks_serving.blobs import Account, Blobs, RefusedError
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ResourceTypes,
    generate_account_sas,
)

from shared.core.errors import InvalidInputError, UnavailableError

_KEY = "AccountName=a;AccountKey=a2V5;"


def _fields(connection: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in connection.strip(";").split(";"))


def test_a_list_of_many_pages_holds_every_blob_with_its_etag(unused_accounts: Iterator[str]) -> None:
    connection = next(unused_accounts)
    names = [f"päth with space/{number:02d}+&=?#%.json" for number in range(7)]
    with BlobServiceClient.from_connection_string(connection) as service:
        service.create_container("routes")
        etags = {
            name: service.get_blob_client("routes", name).upload_blob(name.encode())["etag"].strip('"')
            for name in names
        }
    blobs = Blobs(Account.from_connection_string(connection), page=2)
    assert blobs.etags("routes") == etags
    for name in names:
        assert blobs.read("routes", name, unless_etag=None, max_bytes=1000) == (name.encode(), etags[name])
        with pytest.raises(RefusedError, match="304"):
            blobs.read("routes", name, unless_etag=etags[name], max_bytes=1000)


def test_a_shared_access_signature_reads_and_writes_as_far_as_it_says(unused_accounts: Iterator[str]) -> None:
    connection = next(unused_accounts)
    fields = _fields(connection)
    with BlobServiceClient.from_connection_string(connection) as service:
        service.create_container("routes")
    sas = generate_account_sas(
        fields["AccountName"],
        fields["AccountKey"],
        ResourceTypes(object=True),
        AccountSasPermissions(read=True, create=True, write=True),
        datetime.now(UTC) + timedelta(hours=1),
    )
    account = f"BlobEndpoint={fields['BlobEndpoint']};SharedAccessSignature={sas}"
    blobs = Blobs(Account.from_connection_string(account))
    assert blobs.create("routes", "a b.json", b"one")
    assert not blobs.create("routes", "a b.json", b"two")
    assert blobs.read("routes", "a b.json", unless_etag=None, max_bytes=10)[0] == b"one"
    with pytest.raises(RefusedError, match="403"):
        blobs.etags("routes")


@contextlib.contextmanager
def _answering(*answers: bytes) -> Iterator[tuple[str, list[int]]]:
    """A service that gives each answer to one request and closes the connection; where it is, and how many came."""
    came: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for data in answers:
                connection, _ = listener.accept()
                with connection:
                    came.append(len(connection.recv(65536)))
                    connection.sendall(data)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"{_KEY}BlobEndpoint=http://127.0.0.1:{listener.getsockname()[1]}/a;", came
        thread.join(10)
        assert not thread.is_alive()


def _read(connection: str) -> bytes:
    return Blobs(Account.from_connection_string(connection)).read("c", "n", unless_etag=None, max_bytes=1000)[0]


def test_an_answer_that_ends_too_soon_is_no_blob() -> None:
    with (
        _answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf") as (connection, _),
        pytest.raises(UnavailableError, match="6 more"),
    ):
        _read(connection)


@pytest.mark.parametrize("said", [b"", b"rubbish\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"])
def test_what_is_no_answer_is_unavailable_and_not_asked_for_twice(said: bytes) -> None:
    with _answering(said) as (connection, came), pytest.raises(UnavailableError):
        _read(connection)
    assert len(came) == 1


def test_a_kept_connection_that_the_service_closed_is_replaced() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfull"
    with _answering(whole, whole) as (connection, came):
        blobs = Blobs(Account.from_connection_string(connection))
        for _ in range(2):
            assert blobs.read("c", "n", unless_etag=None, max_bytes=1000)[0] == b"full"
    assert len(came) == 2


def test_an_error_of_the_service_is_told_with_its_code() -> None:
    head = b"HTTP/1.1 503 Busy\r\nx-ms-error-code: ServerBusy\r\nContent-Length: 0\r\n\r\n"
    with _answering(head) as (connection, _), pytest.raises(RefusedError, match="HTTP 503 ServerBusy"):
        _read(connection)


def test_a_list_that_is_no_list_is_unavailable() -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<no>"
    with _answering(said) as (connection, _), pytest.raises(UnavailableError, match="cannot be read"):
        Blobs(Account.from_connection_string(connection)).etags("c")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no URL"),
        ("AccountName=a;AccountKey=!", "not base64"),
        ("AccountName=a", "no AccountName with"),
        ("BlobEndpoint=ftp://a;AccountName=a;AccountKey=a2V5", "no URL"),
        ("BlobEndpoint=http://a:99999;AccountName=a;AccountKey=a2V5", "no URL"),
        ("BlobEndpoint=http://a/?x=1;AccountName=a;AccountKey=a2V5", "no URL"),
    ],
)
def test_text_that_is_no_connection_string_says_why(text: str, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        Account.from_connection_string(text)


def test_an_account_without_an_endpoint_is_where_azure_has_it() -> None:
    account = Account.from_connection_string(f"{_KEY}EndpointSuffix=core.chinacloudapi.cn")
    assert account.url.geturl() == "https://a.blob.core.chinacloudapi.cn"
    assert Account.from_connection_string(_KEY).url.geturl() == "https://a.blob.core.windows.net"
