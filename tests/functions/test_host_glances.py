"""Glances at queues (local.host.glances): of a queue of Azurite, whether it is empty; of any other nothing is told."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from azure.storage.queue import QueueClient, QueueServiceClient

from local.host.glances import Glance


@pytest.fixture
def queue(storage: str) -> Iterator[QueueClient]:
    with closing(QueueServiceClient.from_connection_string(storage)) as service:
        queue = service.get_queue_client("work")
        queue.create_queue()
        yield queue


@pytest.fixture
def glance(queue: QueueClient) -> Iterator[Glance]:
    with closing(Glance(queue)) as glance:
        yield glance


def test_a_queue_is_empty_until_a_message_can_be_taken(queue: QueueClient, glance: Glance) -> None:
    assert glance.is_empty()
    queue.send_message("later", visibility_timeout=600)
    assert glance.is_empty()
    queue.send_message("now")
    assert not glance.is_empty()
    taken = queue.receive_message(visibility_timeout=600)
    assert taken is not None
    assert glance.is_empty()
    queue.update_message(taken, visibility_timeout=0)
    assert not glance.is_empty()


def test_a_glance_takes_no_message(queue: QueueClient, glance: Glance) -> None:
    queue.send_message("now")
    assert not glance.is_empty()
    taken = queue.receive_message()
    assert taken is not None
    assert taken.dequeue_count == 1


def test_a_queue_that_is_gone_is_not_told_empty(queue: QueueClient, glance: Glance) -> None:
    queue.delete_queue()
    assert not glance.is_empty()
    queue.create_queue()
    assert glance.is_empty()


@pytest.mark.parametrize(
    "connection",
    [
        pytest.param("AccountName=a;AccountKey=YQ==;QueueEndpoint=http://127.0.0.1:9/a", id="nobody listens"),
        pytest.param("AccountName=a;AccountKey=YQ==;QueueEndpoint=https://127.0.0.1:9/a", id="TLS"),
        pytest.param("SharedAccessSignature=sig=x;QueueEndpoint=http://127.0.0.1:9/a", id="no key"),
    ],
)
def test_what_cannot_be_asked_is_not_told_empty(connection: str) -> None:
    with closing(QueueServiceClient.from_connection_string(connection)) as service:
        assert not Glance(service.get_queue_client("work")).is_empty()


def test_a_connection_that_was_closed_meanwhile_is_opened_again(glance: Glance) -> None:
    assert glance.is_empty()
    stale = glance._connection.sock
    assert stale is not None
    stale.close()
    assert not glance.is_empty()
    assert glance.is_empty()
