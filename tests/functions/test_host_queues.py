"""Queue triggers of the local host, over a real Azurite: each promise of local.host.queues."""

import asyncio
import base64
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.storage.queue import QueueClient, QueueMessage

from local.host.hostjson import QueueOptions
from local.host.messages import Message, decode, encode
from local.host.queues import Backoff, QueueListener, poison_name
from tests.functions.host_case import SampleCase, sample_case
from tests.support.plain import NO_TLS
from tests.support.waiting import eventually


@pytest.fixture
def case(storage: str, tmp_path: Path) -> Iterator[SampleCase]:
    yield from sample_case(storage, tmp_path)


def test_messages_reach_the_function_and_are_deleted(case: SampleCase) -> None:
    case.send("one", "two", *(f"more {number}" for number in range(20)))
    case.start_host()
    notes = case.wait_for("work", 22)
    assert sorted(note["text"] for note in notes) == sorted(["one", "two", *(f"more {number}" for number in range(20))])
    assert {note["count"] for note in notes} == {1}
    eventually(lambda: case.is_empty("work"), what="an empty queue")


def test_a_message_that_always_fails_is_tried_as_often_as_allowed_then_moved_verbatim(case: SampleCase) -> None:
    host = case.start_host()
    body = '{"fail": true, "text": "<ä&\\n>"}'
    case.send(body)
    (poison,) = eventually(lambda: case.raw_messages("work-poison"), what="a poison message")
    assert poison == base64.b64encode(body.encode()).decode()
    assert [note["count"] for note in case.seen("work-began")] == [1, 2, 3]
    # Copied first, deleted then, and told of at last.
    eventually(lambda: "moved to work-poison: it failed 3 times" in host.log(), what="the move to be told of")
    assert case.is_empty("work")


def test_a_body_that_is_not_base64_goes_to_poison_and_the_host_lives(case: SampleCase) -> None:
    case.queue("work").send_message("this is not base64!")
    host = case.start_host()
    assert eventually(lambda: case.raw_messages("work-poison"), what="a poison message") == ["this is not base64!"]
    case.send("fine")
    assert case.wait_for("work")[0]["text"] == "fine"
    assert host.child.exit_code is None


class Hiding(QueueClient):
    """Notes for how many seconds a message was hidden anew."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hidden_s: list[int] = []

    def update_message(self, *args: Any, **kwargs: Any) -> QueueMessage:
        updated = super().update_message(*args, **kwargs)
        self.hidden_s.append(kwargs["visibility_timeout"])
        return updated


def test_the_lease_of_a_message_in_work_is_renewed_until_it_is_done(storage: str) -> None:
    options = QueueOptions(
        batch_size=4, new_batch_threshold=2, max_dequeue_count=3, retry_delay_s=0, poll_cap_s=0.2, base64=False
    )

    async def listen(queue: Hiding) -> None:
        stopping = asyncio.Event()

        async def handle(_: Message) -> bool:
            await asyncio.to_thread(eventually, lambda: len(queue.hidden_s) > 2, what="three renewals")
            stopping.set()
            return True

        await QueueListener(queue=queue, poison=None, options=options, lease_s=2, handle=handle).run(stopping)

    with Hiding.from_connection_string(storage, "work") as queue:
        queue.create_queue()
        queue.send_message("long")
        asyncio.run(asyncio.wait_for(listen(queue), 120))
        assert set(queue.hidden_s) == {2}
        # Each renewal gave another receipt, and only the last one deletes.
        assert queue.get_queue_properties().approximate_message_count == 0


def test_a_host_killed_in_a_call_loses_no_message(case: SampleCase) -> None:
    host = case.start_host(SLIPWAY_HOST_MESSAGE_LEASE_S="2")
    killed = case.directory / "killed"
    held = json.dumps({"until": str(killed)})
    case.send(held, "quick")
    eventually(lambda: {note["text"] for note in case.seen("work-began")} == {held, "quick"}, what="both begun")
    host.child.kill()
    assert held not in {note["text"] for note in case.seen("work")}
    killed.touch()
    case.start_host("second", SLIPWAY_HOST_MESSAGE_LEASE_S="2")
    eventually(lambda: {note["text"] for note in case.seen("work")} == {held, "quick"}, what="both worked off")
    assert all(note["count"] > 1 for note in case.seen("work") if note["text"] == held)
    eventually(lambda: case.is_empty("work"), what="an empty queue")


def test_a_host_told_to_stop_finishes_what_runs(case: SampleCase) -> None:
    host = case.start_host()
    case.send('{"sleep_s": 2}')
    case.wait_for("work-began")
    assert host.child.stop(20.0) == 0
    assert len(case.seen("work")) == 1
    assert case.is_empty("work")


def test_what_overstays_the_grace_is_given_back_at_once(case: SampleCase) -> None:
    host = case.start_host(SLIPWAY_HOST_GRACE_S="1")
    case.send('{"sleep_s": 60}')
    case.wait_for("work-began")
    assert host.child.stop(20.0) == 0
    # The lease is still that of Azure, ten minutes: visible now, it was given back.
    assert case.messages("work") == ['{"sleep_s": 60}']
    assert case.seen("work") == []


def test_two_hosts_share_a_queue(case: SampleCase) -> None:
    first, second = case.start_host("first"), case.start_host("second")
    # Each keeps as many in work as host.json lets it, six: the others are left for the other host.
    both = case.directory / "both"
    case.send(*(json.dumps({"until": str(both), "number": number}) for number in range(40)))
    pids = {first.child.pid, second.child.pid}
    eventually(lambda: {note["pid"] for note in case.seen("work-began")} == pids, what="both at work")
    both.touch()
    notes = case.wait_for("work", 40)
    assert len({note["text"] for note in notes}) == len(notes) == 40
    eventually(lambda: case.is_empty("work"), what="an empty queue")


def test_outputs_become_messages(case: SampleCase) -> None:
    host = case.start_host()
    assert httpx.post(f"{host.url}/api/send", content="first\nsecond", timeout=30, verify=NO_TLS).status_code == 202
    assert sorted(note["text"] for note in case.wait_for("work", 2)) == ["first", "second"]
    case.send("hello", queue="relay")
    assert eventually(lambda: case.messages("relayed"), what="a relayed message") == ["HELLO"]


def test_a_function_over_its_time_fails_its_message_and_ends_the_host(case: SampleCase) -> None:
    host = case.start_host(AzureFunctionsJobHost__functionTimeout="00:00:01")
    case.send('{"sleep_s": 60}')
    assert host.child.wait(30.0) == 3
    assert "function 'work' ran longer than functionTimeout (1 s)" in host.log()
    # Given back after its failure, not when its ten minutes end.
    assert case.messages("work") == ['{"sleep_s": 60}']


def test_a_queue_that_vanishes_is_created_again(case: SampleCase) -> None:
    case.start_host()
    case.queue("work").delete_queue()
    case.send("after")
    assert case.wait_for("work")[0]["text"] == "after"


def test_an_idle_queue_is_looked_at_twice_a_second_or_more() -> None:
    for cap_s, longest_s in ((60.0, 0.5), (0.2, 0.2)):
        backoff = Backoff(min(0.5, cap_s))
        waits = [backoff.after(found=False) for _ in range(50)]
        assert 0.08 <= waits[0] <= 0.12
        assert max(waits) <= longest_s
        assert min(waits[10:]) >= 0.8 * longest_s
        backoff.after(found=True)
        assert backoff.after(found=False) <= 0.12


def test_a_poison_queue_has_no_poison_queue() -> None:
    assert poison_name("work") == "work-poison"
    assert poison_name("work-poison") is None
    assert poison_name("w" * 57) is None


def _message(body: bytes) -> Message:
    now = datetime(2026, 11, 21, 4, 5, 6, tzinfo=UTC)
    return Message(
        id="m1", body=body, dequeue_count=2, pop_receipt="r", inserted_at=now, expires_at=now, next_visible_at=now
    )


def test_the_metadata_holds_the_queue_s_fields_and_those_of_a_json_body() -> None:
    metadata = _message(b'{"endpoint": "iris", "tick": 3, "deep": {"a": [1]}}').metadata()
    found = {
        name: value.value if value.kind == "string" else json.loads(value.value) for name, value in metadata.items()
    }
    assert found == {
        "QueueTrigger": '{"endpoint": "iris", "tick": 3, "deep": {"a": [1]}}',
        "Id": "m1",
        "DequeueCount": 2,
        "PopReceipt": "r",
        "InsertionTime": "2026-11-21T04:05:06+00:00",
        "ExpirationTime": "2026-11-21T04:05:06+00:00",
        "NextVisibleTime": "2026-11-21T04:05:06+00:00",
        "endpoint": "iris",
        "tick": 3,
        "deep": {"a": [1]},
    }


def test_a_body_s_field_stands_in_place_of_the_queue_s_as_in_azure() -> None:
    metadata = _message(b'{"id": "mine"}').metadata()
    assert metadata["Id"].value == "mine"
    assert "id" not in metadata


@pytest.mark.parametrize("body", [b"[1]", b"{broken", b"plain", b"", b"\xff\xfe"])
def test_a_body_that_is_no_json_object_adds_no_metadata(body: bytes) -> None:
    assert len(_message(body).metadata()) == 7


def test_encodings_are_inverse_and_strict() -> None:
    for body, base64_wanted in itertools.product([b"", b"plain", "ä<&>\n".encode()], [True, False]):
        assert decode(encode(body, base64=base64_wanted), base64=base64_wanted) == body
    assert decode("aGVs\nbG8=", base64=True) == b"hello"
    with pytest.raises(ValueError, match="base64"):
        decode("aGVsbG8!", base64=True)
