"""Events of storage: which is a drop, which is nobody's business, and which cannot be read."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions._messages import handle_event
from functions.dead_letters import blob_of_event
from shared.core.errors import InvalidInputError, UnavailableError
from shared.core.messages import Queue, RegisterDrop
from shared.deadletters.documents import LetterState
from shared.registration.dropevents import drop_of_event
from tests.world.world import World

ACCOUNT = "https://stslipway.blob.core.windows.net"


def event(url: str | None = f"{ACCOUNT}/incoming/iris/model.onnx", **changed: Any) -> bytes:
    """As Event Grid tells of a blob, by the example in its documentation."""
    said: dict[str, Any] = {
        "specversion": "1.0",
        "type": "Microsoft.Storage.BlobCreated",
        "source": "/subscriptions/0/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts/stslipway",
        "id": "9aeb0fdf-c01e-0131-0922-9eb54906e209",
        "time": "2026-11-18T15:13:39.4589254Z",
        "subject": "/blobServices/default/containers/incoming/blobs/iris/model.onnx",
        "data": {
            "api": "PutBlockList",
            "eTag": "0x8D8D4F9FC6CB00",
            "contentType": "application/octet-stream",
            "contentLength": 6,
            "blobType": "BlockBlob",
            **({} if url is None else {"url": url}),
            "sequencer": "00000000000004420000000000028963",
        },
    }
    return json.dumps(said | changed).encode()


@pytest.mark.parametrize(
    ("url", "blob"),
    [
        (f"{ACCOUNT}/incoming/iris/model.onnx", "iris/model.onnx"),
        (f"{ACCOUNT}/incoming/iris/a%20b%25.onnx", "iris/a b%.onnx"),
        (f"{ACCOUNT}/incoming/iris/gr%C3%BC%C3%9Fe.onnx", "iris/grüße.onnx"),
        (f"{ACCOUNT}/incoming/iris/a%3Fb%23c.onnx", "iris/a?b#c.onnx"),
        (f"{ACCOUNT}/incoming/iris/folder/deep/MLmodel", "iris/folder/deep/MLmodel"),
    ],
)
def test_a_new_blob_of_incoming_is_a_drop_by_the_name_that_it_has_in_storage(url: str, blob: str) -> None:
    assert drop_of_event(event(url)) == blob


@pytest.mark.parametrize(
    "body",
    [
        event(f"{ACCOUNT}/artifacts/sha256/00"),
        event(f"{ACCOUNT}/incoming2/iris/model.onnx"),
        event(type="Microsoft.Storage.BlobDeleted"),
        event(type="Microsoft.EventGrid.SubscriptionValidationEvent", data=None),
    ],
    ids=["another container", "one whose name begins alike", "a deletion", "another type without data"],
)
def test_what_is_no_new_blob_of_incoming_is_no_drop(body: bytes) -> None:
    assert drop_of_event(body) is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"just words", "it is no event of storage: the body: Invalid JSON"),
        (b"\xff\xfe", "it is no event of storage: the body: "),
        (b"[]", "it is no event of storage: the body: "),
        (event(specversion="2.0"), "it is no event of storage: specversion: "),
        (json.dumps({"topic": "t", "eventType": "Microsoft.Storage.BlobCreated"}).encode(), "specversion: Field req"),
        (event(data="text"), "it is no event of storage: data: "),
        (event(None), "data.url is absent"),
        (event(data=None), "data.url is absent"),
        (event(f"{ACCOUNT}/incoming"), "which names no container with a blob"),
        (event(f"{ACCOUNT}/incoming/"), "which names no container with a blob"),
        (event(f"{ACCOUNT}/incoming/%ff"), "which is no address"),
        (event("https://[bad/incoming/x"), "which is no address"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_says_why(body: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        drop_of_event(body)
    assert said in str(raised.value)
    assert blob_of_event(body) is None


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text(), lambda part: st.dictionaries(st.text(), part)).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_no_bytes_whatever_raise_anything_else(body: bytes) -> None:
    with suppress(InvalidInputError):
        drop_of_event(body)


class Registered:
    """Takes drops, and fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.blobs: list[str] = []

    def __call__(self, wanted: RegisterDrop) -> None:
        if self.failures:
            self.failures -= 1
            raise UnavailableError("storage", "it is down")
        self.blobs.append(wanted.blob)


def handle(world: World, body: bytes, registered: Registered) -> None:
    handle_event(world.dead_letters, body, registered, message_id="event-1")


def test_an_event_that_comes_twice_has_its_drop_looked_at_twice_and_leaves_nothing() -> None:
    world, registered = World(), Registered()
    handle(world, event(), registered)
    handle(world, event(), registered)
    assert registered.blobs == ["iris/model.onnx", "iris/model.onnx"]
    for state in LetterState:
        assert world.dead_letters.letters(state).items == []


def test_an_event_of_another_container_asks_for_nothing() -> None:
    world, registered = World(), Registered()
    handle(world, event(f"{ACCOUNT}/routes/iris.json"), registered)
    assert registered.blobs == []


def test_an_event_that_cannot_be_read_is_kept_at_the_first_try() -> None:
    world, registered = World(), Registered()
    handle(world, event(None), registered)
    (kept,) = world.dead_letters.letters().items
    assert (kept.queue, kept.attempts, kept.body.content) == (Queue.DROP_EVENTS, 1, event(None).decode())
    assert "data.url is absent" in kept.reason
    assert registered.blobs == []


def test_what_fails_is_noted_as_the_drop_s_own_message_which_anything_that_registers_the_drop_settles() -> None:
    world, registered = World(), Registered(failures=1)
    with pytest.raises(UnavailableError):
        handle(world, event(), registered)
    (failing,) = world.dead_letters.letters(LetterState.FAILING).items
    assert failing.queue == Queue.REGISTRATIONS
    assert failing.body.message() == {"blob": "iris/model.onnx"}
    assert "it is down" in failing.reason
    handle(world, event(), registered)
    assert world.dead_letters.letter(failing.id).state is LetterState.SETTLED


def test_an_event_that_was_kept_and_is_read_by_a_later_release_is_settled() -> None:
    world, registered = World(), Registered()
    kept = world.dead_letters.keep(Queue.DROP_EVENTS, event(), message_id="event-1", error=InvalidInputError("new"))
    world.dead_letters.replay(kept.id, by="test")
    handle(world, event(), registered)
    assert registered.blobs == ["iris/model.onnx"]
    assert world.dead_letters.letter(kept.id).state is LetterState.SETTLED
