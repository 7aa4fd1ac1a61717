"""What the queue sender holds, against Azurite."""

import math
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from azure.storage.queue import QueueClient, QueueServiceClient, TextBase64DecodePolicy

from shared.core.errors import InvalidInputError, UnavailableError
from shared.core.messages import Queue
from shared.store.queues import MAX_BODY_BYTES, MAX_DELAY_S, AzureQueues

pytestmark = pytest.mark.azurite


@pytest.fixture
def queue(azurite_connection: str) -> Iterator[QueueClient]:
    """A new queue, seen as the functions host sees it."""
    with QueueClient.from_connection_string(
        azurite_connection, f"test-{uuid4().hex}", message_decode_policy=TextBase64DecodePolicy()
    ) as client:
        client.create_queue()
        yield client


def received(queue: QueueClient) -> list[Any]:
    return list(queue.receive_messages(max_messages=32))


@pytest.mark.parametrize("body", ["x", '{"model":"m","version":1}', "<&>é日本😀", "\0", " ", "x" * MAX_BODY_BYTES])
def test_a_message_arrives_as_base64_with_its_text(queues: AzureQueues, queue: QueueClient, body: str) -> None:
    queues.send(queue.queue_name, body)
    (message,) = received(queue)
    assert message.content == body


def test_a_message_never_expires(queues: AzureQueues, queue: QueueClient) -> None:
    queues.send(queue.queue_name, "x")
    (message,) = received(queue)
    assert message.expires_on.year == 9999


@pytest.mark.parametrize(("delay_s", "whole_s"), [(0.1, 1), (1.0, 1), (100.2, 101), (MAX_DELAY_S, MAX_DELAY_S)])
def test_a_delayed_message_is_hidden_for_the_delay_rounded_up(
    azurite_connection: str, queues: AzureQueues, queue: QueueClient, delay_s: float, whole_s: int
) -> None:
    shown: list[datetime] = []
    with QueueServiceClient.from_connection_string(
        azurite_connection,
        raw_response_hook=lambda response: shown.append(_next_visible(response.http_response.text())),
    ) as service:
        before = datetime.now(UTC)
        AzureQueues(service).send(queue.queue_name, "x", delay_s=delay_s)
        after = datetime.now(UTC)
    (visible_at,) = shown
    assert math.floor((visible_at - after).total_seconds()) <= whole_s
    assert math.ceil((visible_at - before).total_seconds()) >= whole_s
    queues.send(queue.queue_name, "the one without a delay")
    if delay_s > 1:
        assert [message.content for message in received(queue)] == ["the one without a delay"]


def _next_visible(xml: str) -> datetime:
    text = xml.partition("<TimeNextVisible>")[2].partition("</TimeNextVisible>")[0]
    return datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)


@pytest.mark.parametrize("delay_s", [-0.1, MAX_DELAY_S + 0.1, math.nan, math.inf, -math.inf])
def test_a_delay_out_of_range_is_refused(queues: AzureQueues, queue: QueueClient, delay_s: float) -> None:
    with pytest.raises(InvalidInputError, match="the delay of a message"):
        queues.send(queue.queue_name, "x", delay_s=delay_s)
    assert received(queue) == []


@pytest.mark.parametrize("body", ["", "x" * (MAX_BODY_BYTES + 1), "é" * (MAX_BODY_BYTES // 2 + 1), "\ud800"])
def test_a_body_empty_too_large_or_no_text_is_refused(queues: AzureQueues, queue: QueueClient, body: str) -> None:
    with pytest.raises(InvalidInputError, match="a message to"):
        queues.send(queue.queue_name, body)
    assert received(queue) == []


def test_an_absent_queue_is_unavailable_and_says_so(queues: AzureQueues) -> None:
    with pytest.raises(UnavailableError, match=r"queue storage \(no-such-queue\) is unavailable: .* does not exist"):
        queues.send("no-such-queue", "x")


def test_every_queue_can_be_made_and_made_again(azurite_connection: str) -> None:
    with closing(AzureQueues.from_connection_string(azurite_connection)) as queues:
        queues.ensure_queues()
        queues.ensure_queues()
        for queue in Queue:
            queues.send(queue, "x")


def test_a_malformed_connection_string_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="malformed"):
        AzureQueues.from_connection_string("nonsense")
