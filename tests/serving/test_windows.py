"""Windows around a change of plan, with the clock in the test's hand."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from aks_serving.counts import Kind
from aks_serving.serving import Serving
from aks_serving.windows import Windows

from shared.routing.plan import Role, Route
from shared.telemetry.window import Window
from tests.serving import models
from tests.serving.conftest import eventually
from tests.world.fakes import FakeClock

pytestmark = pytest.mark.anyio

ONE, TWO = models.scaler(1.0), models.scaler(2.0)


class _Kept:
    def __init__(self) -> None:
        self.clock = FakeClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
        self.blobs: dict[str, bytes] = {}
        self.windows = Windows(pod="pod", clock=self.clock, keep=self.blobs.__setitem__)

    def all(self) -> list[Window]:
        return [Window.model_validate_json(data) for data in self.blobs.values()]


def _serving(generation: int) -> Serving:
    return Serving(plan=models.plan(generation, models.route(1, ONE)), lanes={}, failed={})


async def test_a_request_that_outlasts_its_plan_is_counted_under_it_and_not_lost() -> None:
    kept = _Kept()
    old, new = _serving(1), _serving(2)
    kept.windows.applied(old)
    old.tally.in_flight = 1
    kept.windows.applied(new)
    kept.windows.close_changed()
    assert [window.generation for window in kept.all()] == [1, 2]
    old.tally.of(1).answered(Kind.ASSIGNED, 3.0)
    old.tally.in_flight = 0
    kept.windows.close_all()
    kept.windows.close_all()
    late = kept.all()[-1]
    assert (late.generation, late.sequence, late.versions[1].requests) == (1, 2, 1)
    assert len(kept.all()) == 3
    assert kept.windows.totals()["churn"][1, "stable"].requests == 1


@pytest.mark.parametrize(
    ("routes", "rollout_id", "windows"),
    [
        ((models.route(1, ONE),), None, 1),
        (models.canary((1, ONE), (2, TWO), 0), "rollout", 4),
        (models.canary((1, ONE), (2, TWO), 10_000), None, 4),
        ((models.route(1, ONE), models.route(2, TWO, role=Role.SHADOW, weight=0)), "rollout", 4),
        ((models.route(1, ONE), models.route(2, TWO, role=Role.SHADOW, weight=0)), None, 4),
        ((models.route(1, ONE),), "rollout", 4),
    ],
)
async def test_an_idle_pod_goes_on_reporting_while_there_is_a_rollout(
    routes: tuple[Route, ...], rollout_id: str | None, windows: int
) -> None:
    kept = _Kept()
    plan = models.plan(1, *routes).model_copy(update={"rollout_id": rollout_id})
    kept.windows.applied(Serving(plan=plan, lanes={}, failed={}))
    kept.windows.close_changed()
    assert len(kept.all()) == 1
    for _ in range(3):
        kept.windows.close_all()
    assert len(kept.all()) == windows


async def test_an_idle_pod_says_once_a_minute_that_it_is_there() -> None:
    kept = _Kept()
    kept.windows.applied(_serving(1))
    for _ in range(60):
        kept.windows.close_all()
        kept.clock.time += timedelta(seconds=5)
    began = kept.all()[0].ended_at
    assert [window.ended_at - began for window in kept.all()] == [timedelta(minutes=minute) for minute in range(5)]
    assert all(not window.versions and not window.is_last for window in kept.all())


async def test_the_last_window_says_so_though_there_is_nothing_to_count() -> None:
    kept = _Kept()
    old, new = _serving(1), _serving(2)
    kept.windows.applied(old)
    kept.windows.close_all()
    old.tally.in_flight = 1
    kept.windows.applied(new)
    kept.windows.close_all(is_last=True)
    assert [(window.generation, window.is_last) for window in kept.all()] == [(1, False), (2, True)]


async def test_an_idle_pod_tells_at_once_that_it_went_back_and_once_only() -> None:
    """Also where a request still hangs at the version that it went back from."""
    kept = _Kept()
    routes = models.canary((1, ONE), (2, TWO), 10_000)
    watched = Serving(plan=models.plan(1, *routes), lanes={}, failed={})
    kept.windows.applied(watched)
    kept.windows.close_changed()
    watched.tally.in_flight = 1
    running = asyncio.create_task(kept.windows.run(every_s=3600.0))
    kept.windows.applied(_serving(2))
    await eventually(lambda: kept.all()[-1].generation == 2)
    running.cancel()
    for _ in range(3):
        kept.windows.close_all()
    assert [window.generation for window in kept.all()].count(2) == 1


async def test_a_window_tells_of_memory_what_was_measured() -> None:
    blobs = dict[str, bytes]()
    windows = Windows(pod="pod", clock=FakeClock(), keep=blobs.__setitem__, memory_share=lambda: 0.25)
    windows.applied(_serving(1))
    windows.close_all()
    (data,) = blobs.values()
    assert Window.model_validate_json(data).memory_share == 0.25


async def test_windows_of_one_plan_follow_each_other_without_a_gap() -> None:
    kept = _Kept()
    serving = _serving(1)
    kept.windows.applied(serving)
    for minute in range(3):
        kept.clock.time += timedelta(minutes=25)
        serving.tally.of(1).answered(Kind.ASSIGNED, 1.0 + minute)
        kept.windows.close_all()
    windows = kept.all()
    assert [w.started_at for w in windows[1:]] == [w.ended_at for w in windows[:-1]]
    assert [name.split("/")[1] for name in kept.blobs] == ["2026-03-01T12-25", "2026-03-01T12-50", "2026-03-01T13-15"]


async def test_a_clock_that_is_set_back_makes_no_window_that_ends_before_it_starts() -> None:
    kept = _Kept()
    serving = _serving(1)
    kept.windows.applied(serving)
    kept.clock.time -= timedelta(hours=5)
    serving.tally.of(1).failed(Kind.ASSIGNED)
    kept.windows.close_all()
    (window,) = kept.all()
    assert window.started_at == window.ended_at


async def test_the_names_of_windows_are_in_their_order_though_the_clock_is_set_back_by_minutes() -> None:
    kept = _Kept()
    serving = _serving(1)
    kept.windows.applied(serving)
    for minutes in (1, -3, 1, 1, 2, -600):
        kept.clock.time += timedelta(minutes=minutes)
        serving.tally.of(1).failed(Kind.ASSIGNED)
        kept.windows.close_all()
    kept.clock.time += timedelta(minutes=1)
    kept.windows.close_all()
    named = [name.split("/")[1] for name in kept.blobs]
    assert named[:-1] == [f"2026-03-01T12-{minute:02d}" for minute in (1, 1, 1, 1, 2, 2)]
    # Ten hours are not made good, and the pod says that it is there.
    assert named[-1] == "2026-03-01T02-03"


async def test_windows_are_closed_on_where_keeping_one_goes_wrong(caplog: pytest.LogCaptureFixture) -> None:
    kept = list[str]()

    def keep(name: str, _: bytes) -> None:
        kept.append(name)
        if len(kept) < 3:
            raise LookupError("says the test")

    windows = Windows(pod="pod", clock=FakeClock(), keep=keep)
    windows.applied(_serving(1))
    running = asyncio.create_task(windows.run(every_s=0.001))

    def count_more() -> bool:
        windows.announce("churn")
        return len(kept) > 3

    await eventually(count_more)
    assert not running.done()
    assert "the next ones follow" in caplog.text
    running.cancel()
