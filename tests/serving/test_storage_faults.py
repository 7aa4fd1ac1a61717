"""Storage that fails, as the adapter tells it: one attempt a call, and an error that says what it was and no secret."""

import socket
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from aks_serving.settings import Settings
from aks_serving.storage import AzureStorage, open_storage

from shared.core.errors import InvalidInputError, UnavailableError
from shared.core.ids import endpoint_name
from tests.serving.scripted_storage import Answer, response, saying, scripted

CHURN = endpoint_name("churn")
_DIGEST = "ab" * 32
_MIB = 1024 * 1024


def _opened(connection: str, *, read_s: float = 20.0) -> AzureStorage:
    settings = Settings(storage_connection=connection, blob_url=None, cache_dir=Path("unused"), pod="pod")
    return open_storage(settings, read_s=read_s)


CALLS: dict[str, Callable[[AzureStorage], object]] = {
    "list": lambda storage: storage.plan_etags(),
    "plan": lambda storage: storage.plan(CHURN, unless_etag="0x1"),
    "artifact": lambda storage: list(storage.artifact(_DIGEST, max_bytes=_MIB)),
    "window": lambda storage: storage.keep_window("churn/a.json", b"window"),
}


def _refusal(code: str) -> bytes:
    return f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>No.</Message></Error>'.encode()


FAULTS = {
    "broken": (response(b"oops", status="500 Internal Server Error"), "500"),
    "busy": (response(_refusal("ServerBusy"), status="503 Service Unavailable"), "ServerBusy"),
    "throttled": (response(status="429 Too Many Requests"), "429"),
    "refused": (response(_refusal("AuthorizationPermissionMismatch"), status="403 Forbidden"), "PermissionMismatch"),
    "no container": (response(_refusal("ContainerNotFound"), status="404 Not Found"), "ontainer"),
    "container going": (response(_refusal("ContainerBeingDeleted"), status="409 Conflict"), "ContainerBeingDeleted"),
    "elsewhere": (
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        "302|sending",
    ),
    "not HTTP": (b"220 mail.example ready\r\n", "sending"),
    "gone at once": (b"", "sending"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", CALLS)
def test_whatever_storage_answers_is_unavailable_after_one_attempt(call: str, fault: str) -> None:
    data, told = FAULTS[fault]
    with scripted(saying(data)) as service:
        with pytest.raises(UnavailableError, match=told) as caught:
            CALLS[call](_opened(service.connection))
        assert len(service.requests) == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", ["list", "plan", "artifact"])
def test_a_body_that_is_cut_short_is_unavailable_and_not_half_an_answer(call: str) -> None:
    with (
        scripted(saying(response(b"half", length=8))) as service,
        pytest.raises(UnavailableError),
    ):
        CALLS[call](_opened(service.connection))


@pytest.mark.parametrize(
    ("call", "sent"),
    [(call, b"") for call in CALLS] + [(call, response(b"half", length=8)) for call in ("list", "plan", "artifact")],
)
def test_storage_that_sends_no_more_is_given_up_and_holds_no_other_thread(call: str, sent: bytes) -> None:
    given_up = threading.Event()
    heard: list[bool] = []

    def stalls(conn: socket.socket, _: bytes) -> None:
        conn.sendall(sent)
        heard.append(given_up.wait(20))

    # The service answers from a thread of this process: a call that held the interpreter would never be answered.
    with scripted(stalls) as service:
        try:
            with pytest.raises(UnavailableError):
                CALLS[call](_opened(service.connection, read_s=0.2))
        finally:
            given_up.set()
    assert heard == [True]  # the call ended first, and not the service


def test_a_plan_of_more_than_a_mebibyte_is_cut() -> None:
    with scripted(saying(response(b"x" * 3 * _MIB))) as service:
        plan = _opened(service.connection).plan(CHURN, unless_etag=None)
    assert plan is not None
    assert (len(plan.data), plan.etag) == (_MIB, "0x1")


def test_an_artifact_that_is_too_large_is_given_up_at_the_limit() -> None:
    with (
        scripted(saying(response(b"x" * 12 * _MIB))) as service,
        pytest.raises(InvalidInputError, match="larger than"),
    ):
        list(_opened(service.connection).artifact(_DIGEST, max_bytes=_MIB))


def _page(name: str, marker: str) -> bytes:
    properties = (
        "<Last-Modified>Sat, 21 Nov 2026 12:00:00 GMT</Last-Modified><Content-Length>1</Content-Length>"
        f"<Content-Type>a/b</Content-Type><Etag>0x-{name}</Etag>"
    )
    blob = f"<Blob><Name>{name}.json</Name><Properties>{properties}</Properties></Blob>"
    return response(
        f'<?xml version="1.0"?><EnumerationResults><Blobs>{blob}</Blobs><NextMarker>{marker}</NextMarker>'
        "</EnumerationResults>".encode()
    )


def test_a_list_of_several_pages_is_read_to_its_end() -> None:
    def answer(conn: socket.socket, request: bytes) -> None:
        conn.sendall(_page("fraud", "") if b"marker=more" in request else _page("churn", "more"))

    with scripted(answer) as service:
        assert _opened(service.connection).plan_etags() == {
            CHURN: "0x-churn",
            endpoint_name("fraud"): "0x-fraud",
        }


def _refuse_and_repeat(conn: socket.socket, request: bytes) -> None:
    asked = request.split(b" ")[1]
    conn.sendall(response(b"not for you: " + asked, status="403 Forbidden"))


@pytest.mark.parametrize("answer", [_refuse_and_repeat, saying(b"")], ids=["refused", "gone"])
@pytest.mark.parametrize("call", CALLS)
def test_no_error_tells_the_signature_that_a_url_holds(call: str, answer: Answer) -> None:
    with scripted(answer) as service:
        connection = f"BlobEndpoint={service.url}/scripted;SharedAccessSignature=?sv=2026&sig=c2VjcmV0"
        with pytest.raises(UnavailableError) as caught:
            CALLS[call](_opened(connection))
        assert b"sig=c2VjcmV0" in service.requests[0]
    assert "c2VjcmV0" not in "".join(traceback.format_exception(caught.value))
