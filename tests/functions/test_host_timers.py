"""Timers of the local host, over a real Azurite: occurrences, past due, claims."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from local.host.bindings import Binding, Function
from local.host.errors import HostStartError
from local.host.invocations import Invoked
from local.host.protos import TypedData
from local.host.schedules import Schedule
from local.host.storage import HOSTS_CONTAINER, Storage, ensure_container
from local.host.timers import Status, TimerListener, TimerTrigger, _StatusStore
from tests.functions.host_case import HOST_ID, NEVER, SampleCase, sample_case
from tests.support.waiting import eventually

_EVERY_SECOND = "* * * * * *"
_STATUS = f"timers/{HOST_ID}/tick/status"


@pytest.fixture
def case(storage: str, tmp_path: Path) -> Iterator[SampleCase]:
    yield from sample_case(storage, tmp_path)


def _status(case: SampleCase) -> dict[str, Any]:
    blob = case.blobs.get_blob_client("azure-webjobs-hosts", _STATUS)
    found: dict[str, Any] = json.loads(blob.download_blob().readall())
    return found


def _store_status(case: SampleCase, status: dict[str, str]) -> None:
    case.upload("azure-webjobs-hosts", _STATUS, json.dumps(status))


def _a_year_ago(schedule: str) -> dict[str, str]:
    then = datetime.now(UTC) - timedelta(days=400)
    due = Schedule(schedule, function="tick").after(then)
    return {"Last": then.isoformat(), "Next": due.isoformat(), "LastUpdated": then.isoformat()}


def test_occurrences_come_in_order_and_none_is_past_due(case: SampleCase) -> None:
    case.start_host(TICK_SCHEDULE="*/2 * * * * *")
    notes = case.wait_for("tick", 2)
    due = [datetime.fromisoformat(note["status"]["Next"]) for note in notes]
    assert all(moment.second % 2 == 0 and moment.microsecond == 0 for moment in due)
    assert due == sorted(set(due))
    assert not any(note["past_due"] for note in notes)
    assert all(note["at"] >= moment.timestamp() for note, moment in zip(notes, due, strict=True))


def test_of_two_hosts_one_makes_an_occurrence(case: SampleCase) -> None:
    case.start_host("first", TICK_SCHEDULE=_EVERY_SECOND)
    case.start_host("second", TICK_SCHEDULE=_EVERY_SECOND)
    notes = case.wait_for("tick-began", 6)
    due = [note["status"]["Next"] for note in notes]
    assert len(set(due)) == len(due)


def test_a_new_timer_waits_for_its_first_occurrence(case: SampleCase) -> None:
    case.start_host()
    status = eventually(
        lambda: _status(case) if case.blobs.get_blob_client("azure-webjobs-hosts", _STATUS).exists() else {},
        what="the timer's status",
    )
    assert datetime.fromisoformat(status["Next"]) == Schedule(NEVER, function="tick").after(datetime.now(UTC))
    assert case.seen("tick-began") == []


def test_missed_occurrences_are_made_up_by_one_call_past_due(case: SampleCase) -> None:
    _store_status(case, _a_year_ago(NEVER))
    case.start_host()
    (note,) = case.wait_for("tick")
    assert note["past_due"] is True
    status = eventually(lambda: s if "ClaimedBy" not in (s := _status(case)) else {}, what="the claim's end")
    assert datetime.fromisoformat(status["Next"]) > datetime.now(UTC)
    assert set(status) == {"Last", "Next", "LastUpdated"}


def test_a_changed_schedule_is_reckoned_anew(case: SampleCase) -> None:
    now = datetime.now(UTC)
    far = now + timedelta(days=300)
    _store_status(case, {"Last": now.isoformat(), "Next": far.isoformat(), "LastUpdated": now.isoformat()})
    case.start_host(TICK_SCHEDULE=_EVERY_SECOND)
    assert case.wait_for("tick")


class Stalling(_StatusStore):
    """Stalls after each status that it has written, until what is next has come."""

    def create(self, status: Status) -> None:
        super().create(status)
        _wait_for(status.next)

    def replace(self, status: Status, etag: str) -> str:
        etag = super().replace(status, etag)
        _wait_for(status.next)
        return etag


def _wait_for(moment: datetime) -> None:
    eventually(lambda: datetime.now(UTC) > moment, what=f"{moment} to come")


def listener_of(
    connection: Storage, store: _StatusStore, call: Callable[[dict[str, Any]], Awaitable[object]]
) -> TimerListener:
    """A listener in this process. `call` is given what the function would be."""

    class Calls:
        async def call(self, _function: Function, data: TypedData, _metadata: dict[str, TypedData]) -> Invoked:
            await call(json.loads(data.json))
            return Invoked(succeeded=True)

    function = Function(name="tick", id="1", trigger=Binding(name="t", type="", fields={}), queues={}, http_output=None)
    schedule = Schedule(_EVERY_SECOND, function="tick")
    trigger = TimerTrigger(function=function, schedule=schedule, run_on_startup=False, monitored=True)
    calls: Any = Calls()
    listener = TimerListener(trigger, storage=connection, host_id=HOST_ID, claim_s=60, invoker=calls)
    listener._store = store
    return listener


def calls_of(connection: Storage, store: _StatusStore, *, number: int) -> list[bool]:
    """Whether each of the first calls by a listener is told that it is past due."""
    told: list[bool] = []
    stopping = asyncio.Event()

    async def call(data: dict[str, Any]) -> None:
        told.append(data["IsPastDue"])
        if len(told) == number:
            stopping.set()

    asyncio.run(asyncio.wait_for(listener_of(connection, store, call).run(stopping), 120))
    return told


class Begun(_StatusStore):
    """Has, from when it is first looked at, the status of an occurrence that comes in some seconds."""

    def __init__(self, storage: Storage, claimed: Callable[[Status], Status] = lambda status: status) -> None:
        super().__init__(storage.blobs.get_blob_client(HOSTS_CONTAINER, _STATUS))
        self._claimed: Callable[[Status], Status] | None = claimed

    def load(self) -> tuple[Status, str] | None:
        claimed, self._claimed = self._claimed, None
        if claimed is not None:
            reckoned = datetime.now(UTC) + timedelta(seconds=2)
            due = Schedule(_EVERY_SECOND, function="tick").after(reckoned)
            self.create(claimed(Status(last=reckoned, next=due, updated=reckoned)))
        return super().load()


def by_dead(until_s: float) -> Callable[[Status], Status]:
    """A claim of a host that died, which holds until so long after the occurrence is due."""
    return lambda status: replace(status, claimed_by="dead", claimed_until=status.next + timedelta(seconds=until_s))


def test_an_occurrence_that_comes_before_its_host_has_begun_to_wait_is_not_past_due(storage: str) -> None:
    connection = Storage(storage)
    ensure_container(connection.blobs, HOSTS_CONTAINER)
    stalling = Stalling(connection.blobs.get_blob_client(HOSTS_CONTAINER, _STATUS))
    assert calls_of(connection, stalling, number=2) == [False, False]


@pytest.mark.parametrize("until_s", [-1.0, 1.0])
def test_an_occurrence_is_past_due_where_it_came_while_a_host_that_died_had_claimed_it(
    storage: str, until_s: float
) -> None:
    """That host had it, and not a call at the start, before it came."""
    connection = Storage(storage)
    ensure_container(connection.blobs, HOSTS_CONTAINER)
    assert calls_of(connection, Begun(connection, by_dead(until_s)), number=1) == [until_s > 0]


def test_an_occurrence_in_whose_call_another_host_was_stopped_is_past_due_and_made_at_once(storage: str) -> None:
    connection = Storage(storage)
    ensure_container(connection.blobs, HOSTS_CONTAINER)
    store = Begun(connection)
    told: list[bool] = []

    async def hosts() -> None:
        stopping = asyncio.Event()

        async def call(data: dict[str, Any]) -> None:
            told.append(data["IsPastDue"])
            if len(told) == 1:
                hanging = asyncio.current_task()
                assert hanging is not None
                asyncio.get_running_loop().call_soon(hanging.cancel)
                await asyncio.Event().wait()
            stopping.set()

        runs = [listener_of(connection, store, call).run(stopping) for _ in range(2)]
        await asyncio.wait_for(asyncio.gather(*runs, return_exceptions=True), 50)

    asyncio.run(hosts())
    assert told == [False, True]


def test_a_status_that_cannot_be_read_is_begun_anew(case: SampleCase) -> None:
    _store_status(case, {"Last": "yesterday"})
    case.start_host(TICK_SCHEDULE=_EVERY_SECOND)
    assert case.wait_for("tick")


def test_an_occurrence_whose_call_was_killed_is_made_up_past_due(case: SampleCase) -> None:
    _store_status(case, _a_year_ago(NEVER))
    host = case.start_host(TICK_SLEEP_S="60", SLIPWAY_HOST_TIMER_LEASE_S="1")
    case.wait_for("tick-began")
    host.child.kill()
    case.start_host("second", SLIPWAY_HOST_TIMER_LEASE_S="1")
    (note,) = case.wait_for("tick")
    assert note["past_due"] is True


def test_a_claim_is_renewed_so_that_calls_never_overlap(case: SampleCase) -> None:
    _store_status(case, _a_year_ago(NEVER))
    renewed = case.directory / "renewed"
    # Renewed at a third of it: a host may stall for the other two, and the claim holds.
    settings = {"TICK_UNTIL": str(renewed), "SLIPWAY_HOST_TIMER_LEASE_S": "9"}
    case.start_host("first", **settings)
    case.start_host("second", **settings)
    case.wait_for("tick-began")
    claimed_until = _status(case)["ClaimedUntil"]
    eventually(lambda: _status(case)["ClaimedUntil"] > claimed_until, what="the claim's renewal")
    renewed.touch()
    case.wait_for("tick")
    eventually(lambda: "ClaimedBy" not in _status(case), what="the claim's end")
    assert len(case.seen("tick-began")) == 1


def test_a_call_that_overstays_the_grace_is_made_up_at_once(case: SampleCase) -> None:
    _store_status(case, _a_year_ago(NEVER))
    host = case.start_host(TICK_SLEEP_S="60", SLIPWAY_HOST_GRACE_S="0.5", SLIPWAY_HOST_TIMER_LEASE_S="600")
    case.wait_for("tick-began")
    assert host.child.stop(20.0) == 0
    assert datetime.fromisoformat(_status(case)["ClaimedUntil"]) < datetime.now(UTC)
    case.start_host("second", SLIPWAY_HOST_TIMER_LEASE_S="600")
    assert case.wait_for("tick")[0]["past_due"] is True


def test_a_failing_timer_goes_on(case: SampleCase) -> None:
    case.start_host(TICK_SCHEDULE=_EVERY_SECOND, TICK_FAILS="1")
    assert len(case.wait_for("tick", 2)) >= 2


_START = datetime(2026, 11, 21, 4, 30, 0, tzinfo=UTC)  # a Saturday


@pytest.mark.parametrize(
    ("expression", "next_one"),
    [
        ("0 */5 * * * *", "2026-11-21T04:35:00+00:00"),
        ("*/10 * * * * *", "2026-11-21T04:30:10+00:00"),
        ("30 15 9 * * 1-5", "2026-11-23T09:15:30+00:00"),
        ("0 0 0 * * 0", "2026-11-22T00:00:00+00:00"),
        ("0 0 0 * * Sun", "2026-11-22T00:00:00+00:00"),
        ("0 0 0 1 Jan *", "2027-01-01T00:00:00+00:00"),
        ("0 0 0 13 * 5", "2027-08-13T00:00:00+00:00"),  # Friday the 13th: both fields hold
        ("0 0 0 29 2 *", "2028-02-29T00:00:00+00:00"),
        ("0,30 30 4 * * *", "2026-11-21T04:30:30+00:00"),
    ],
)
def test_schedules_have_six_fields_and_begin_with_the_second(expression: str, next_one: str) -> None:
    assert Schedule(expression, function="f").after(_START).isoformat() == next_one


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * * *",
        "* * * * * * *",
        "@hourly",
        "60 * * * * *",
        "0 0 0 31 2 *",
        "0 0 0 L * *",
        "00:00:10",
        "a b c d e f",
    ],
)
def test_what_is_no_schedule_is_an_error_naming_the_function(expression: str) -> None:
    with pytest.raises(HostStartError, match="function 'f': its schedule"):
        Schedule(expression, function="f")
