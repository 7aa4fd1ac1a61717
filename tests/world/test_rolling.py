"""Roll-ups: whatever order windows come in, however late, and whenever a process dies, each counts once in its hour."""

import json
from datetime import timedelta

import pytest

from shared.registry.drift_policy import DriftPolicy
from shared.store.ports import BlobContainer
from shared.telemetry.features import MAX_CELL, FeatureCounts, FeatureWindow
from shared.watching.merging import roll_up_hour
from shared.watching.rolling import Rolling
from shared.watching.rollups import ROLLUPS, FeatureRollup, daily_name, day_of, hour_of, hourly_name
from tests.world.fakes import Killed
from tests.world.watched import Watched, counted, rows_of
from tests.world.world import MODEL


def rollup(watched: Watched, name: str) -> FeatureRollup:
    return FeatureRollup.model_validate_json(watched.world.blobs.held[ROLLUPS, name].data)


def unchecked(_: FeatureCounts) -> None:
    """Takes any counts."""


def test_late_doubled_and_shuffled_windows_count_once() -> None:
    one, other = Watched(), Watched()
    hour = hour_of(one.now)
    parts = [counted(one.profile, rows_of(one.rng, 50)) for _ in range(6)]
    for at, counts in enumerate(parts):
        one.write({"1:stable": counts}, pod=f"pod-{at % 2}", at=hour + timedelta(minutes=at * 5))
        one.world.watching.watch()
    for at, counts in reversed(list(enumerate(parts))):
        other.sequences[f"pod-{at % 2}"] = at // 2
        other.write({"1:stable": counts}, pod=f"pod-{at % 2}", at=hour + timedelta(minutes=at * 5))
        other.world.watching.watch()
        other.world.watching.watch()
    for each in (one, other):
        # What came when its minute was long over is found when the hour is.
        each.world.clock.pass_s(3_600 + 240)
        each.world.watching.watch()
    name = hourly_name(MODEL, hour)
    assert rollup(one, name) == rollup(other, name)
    assert rollup(one, name).versions == {"1:stable": FeatureCounts.sum_of(parts)}
    assert (rollup(one, name).windows, rollup(one, name).taken) == (6, {"pod-0": ((0, 2),), "pod-1": ((0, 2),)})


def test_a_window_that_comes_a_day_late_is_in_its_hour_and_its_day() -> None:
    watched = Watched()
    begun = watched.now
    for _ in range(26):
        watched.hour(rows=30)
    day = daily_name(MODEL, day_of(begun))
    before = rollup(watched, day).versions["1:stable"].rows
    watched.write({"1:stable": counted(watched.profile, rows_of(watched.rng, 77))}, pod="late", at=begun)
    watched.hour(rows=30)
    assert rollup(watched, hourly_name(MODEL, hour_of(begun))).versions["1:stable"].rows == 30 + 77
    assert rollup(watched, day).versions["1:stable"].rows == before + 77


def test_a_window_that_cannot_be_read_or_contradicts_itself_is_left_out_and_counted() -> None:
    watched = Watched()
    good = counted(watched.profile, rows_of(watched.rng, 100))
    watched.write({"1:stable": good})
    watched.write({"1:stable": good.model_copy(update={"rows": 99})})
    watched.write({"1:stable": good.model_copy(update={"profile": "f" * 64})})
    # One such sum, and nothing could be added to it any more.
    squares = watched.profile.features[0].width - 1
    cells = [MAX_CELL if place == squares else cell for place, cell in enumerate(good.cells)]
    watched.write({"1:stable": good.model_copy(update={"cells": cells})})
    name = watched.write({"1:stable": good})
    watched.world.blobs.put(BlobContainer.TELEMETRY, name, b"{", {})
    watched.world.watching.watch()
    found = rollup(watched, hourly_name(MODEL, hour_of(watched.now)))
    assert (found.windows, found.left_out, found.versions["1:stable"]) == (5, 4, good)


def test_more_than_a_billion_rows_that_lie_as_far_away_as_is_told_apart_are_reported_on() -> None:
    watched = Watched()
    far = counted(watched.profile, rows_of(watched.rng, 100, {"age": 1e6}))
    cells = [cell * 10**7 for cell in far.cells]
    for _ in range(25):
        watched.write({"1:stable": FeatureCounts(profile=far.profile, rows=10**9, cells=cells)})
        watched.world.clock.pass_s(3_600)
        watched.world.watching.watch()
    assert watched.latest.rows == 24 * 10**9
    assert watched.latest.most_to_blame[0].name == "age"
    assert "data_drift" in watched.firing()


def test_rows_that_the_pods_dropped_are_told_with_the_report() -> None:
    watched = Watched(policy=DriftPolicy(span_h=6))
    watched.world.clock.pass_s(600)
    for dropped in (7, 0, 5):
        name = watched.write({"1:stable": counted(watched.profile, rows_of(watched.rng, 100))})
        window = FeatureWindow.model_validate_json(watched.world.blobs.held[BlobContainer.TELEMETRY, name].data)
        window = window.model_copy(update={"dropped": {"1:stable": dropped, "2:shadow": 1}})
        watched.world.blobs.put(BlobContainer.TELEMETRY, name, window.model_dump_json().encode(), {})
        watched.world.watching.watch()
    watched.world.watching.report_now(MODEL)
    details = json.loads(watched.world.watching.reports.json(MODEL, watched.latest.report_id))
    assert details["quality"]["dropped"] == 12
    assert b"could not keep up with</dt><dd>12<" in watched.world.watching.reports.page(MODEL, watched.latest.report_id)


def test_rows_are_told_with_the_share_that_they_are_of_whatever_share_each_pod_counts() -> None:
    watched = Watched(policy=DriftPolicy(span_h=6))
    world = watched.world
    for hour in range(2):
        world.clock.pass_s(600)
        for pod, share, rows, dropped in (("one", 0.25, 100, 7), ("all", 1.0, 50, 0), ("bad", 0.5, 30, 0)):
            name = watched.write({"1:stable": counted(watched.profile, rows_of(watched.rng, rows))}, pod=pod)
            window = FeatureWindow.model_validate_json(world.blobs.held[BlobContainer.TELEMETRY, name].data)
            window = window.model_copy(update={"share": share, "dropped": {"1:stable": dropped} if dropped else {}})
            if pod == "bad":
                window.versions["1:stable"] = window.versions["1:stable"].model_copy(update={"rows": 31})
            world.blobs.put(BlobContainer.TELEMETRY, name, window.model_dump_json().encode(), {})
        world.watching.watch()
        if hour == 0:
            # One that was rolled up before shares were.
            name = hourly_name(MODEL, hour_of(watched.now))
            found = rollup(watched, name)
            assert found.asked == {"1:stable": 428 + 50}
            old = found.model_copy(update={"asked": {}})
            world.blobs.put(ROLLUPS, name, old.model_dump_json(exclude={"asked"}).encode(), {})
    world.watching.report_now(MODEL)
    assert (watched.latest.rows, watched.latest.asked) == (300, (150 + 7) + (428 + 50))
    page = world.watching.reports.page(MODEL, watched.latest.report_id).decode()
    assert "<dt>rows counted</dt><dd>300, 47.24% of about 635</dd>" in page


def test_more_windows_than_a_look_takes_are_carried_on() -> None:
    watched = Watched()
    for _ in range(7):
        watched.write({"1:stable": counted(watched.profile, rows_of(watched.rng, 20))})
    hour, check = hour_of(watched.now), lambda _: None
    looks = [roll_up_hour(watched.world.blobs, MODEL, hour, check=check, most=3) for _ in range(4)]
    assert [(look.added, look.is_left) for look in looks] == [(3, True), (3, True), (1, False), (0, False)]
    assert rollup(watched, hourly_name(MODEL, hour)).versions["1:stable"].rows == 140


def test_late_hours_are_gone_over_a_few_a_call_and_the_next_call_carries_on_from_there() -> None:
    watched = Watched()
    counts = {"1:stable": counted(watched.profile, rows_of(watched.rng, 20))}
    late = [hour_of(watched.now) - timedelta(hours=number) for number in (12, 11, 10, 9)]
    for hour in late:
        watched.write(counts, pod="one", at=hour)
        watched.write(counts, pod="two", at=hour)
    watched.world.watching.rolling.most_listed = 3

    def rolled() -> int:
        held = watched.world.blobs.held
        return sum((ROLLUPS, hourly_name(MODEL, hour)) in held for hour in late)

    watched.world.watching.watch()
    assert rolled() == 2
    # From where the first one stopped: begun anew it would list no farther.
    watched.world.watching.watch()
    assert rolled() == 4
    watched.world.watching.watch()
    assert rollup(watched, daily_name(MODEL, day_of(late[0]))).windows == 2 * sum(
        day_of(hour) == day_of(late[0]) for hour in late
    )


def test_late_hours_are_reached_although_every_call_has_more_new_windows_than_it_takes() -> None:
    watched = Watched()
    counts = {"1:stable": counted(watched.profile, rows_of(watched.rng, 20))}
    begun = hour_of(watched.now) - timedelta(hours=10)
    watched.write(counts, pod="late", at=begun)
    watched.world.watching.rolling.most_windows = 5
    for _ in range(3):
        for pod in range(6):
            watched.write(counts, pod=f"pod-{pod}")
        watched.world.clock.pass_s(60)
        watched.world.watching.watch()
    assert rollup(watched, hourly_name(MODEL, begun)).windows == 1


def test_a_call_lists_the_newest_minutes_and_the_hour_whole_once_it_is_over() -> None:
    watched = Watched()
    blobs, rolling, hour = watched.world.blobs, Rolling(blobs=watched.world.blobs), hour_of(watched.now)
    counts = {"1:stable": counted(watched.profile, rows_of(watched.rng, 20))}
    clock = watched.world.clock
    clock.time = hour + timedelta(minutes=30)
    rolling.roll_up(MODEL, watched.now, unchecked)
    watched.write(counts, pod="now")
    watched.write(counts, pod="behind", at=watched.now - timedelta(minutes=4))
    watched.write(counts, pod="late", at=hour + timedelta(minutes=2))
    clock.pass_s(60)
    assert rolling.roll_up(MODEL, watched.now, unchecked) == 2
    watched.write(counts, pod="after", at=watched.now + timedelta(minutes=4))
    clock.pass_s(60)
    assert [rolling.roll_up(MODEL, watched.now, unchecked) for _ in range(2)] == [1, 0]
    clock.time = hour + timedelta(hours=1, minutes=4)
    assert rolling.roll_up(MODEL, watched.now, unchecked) == 1
    assert rollup(watched, hourly_name(MODEL, hour)).windows == 4
    assert blobs.held[ROLLUPS, f"{MODEL}/features-looked.json"]


def test_what_came_while_nobody_looked_is_rolled_up_by_the_next_call() -> None:
    watched = Watched()
    rolling = Rolling(blobs=watched.world.blobs)
    counts = {"1:stable": counted(watched.profile, rows_of(watched.rng, 20))}
    watched.world.clock.time = hour_of(watched.now) + timedelta(minutes=10)
    rolling.roll_up(MODEL, watched.now, unchecked)
    for _ in range(4):
        watched.world.clock.pass_s(600)
        watched.write(counts)
    assert rolling.roll_up(MODEL, watched.now, unchecked) == 4


def test_killed_at_any_call_while_rolling_up_the_next_call_leaves_every_window_counted_once() -> None:
    watched = Watched()
    world, rolling = watched.world, Rolling(blobs=watched.world.blobs)
    counts = {"1:stable": counted(watched.profile, rows_of(watched.rng, 20))}
    world.clock.time = hour_of(watched.now) + timedelta(minutes=58)
    rolling.roll_up(MODEL, watched.now, unchecked)
    for minute in range(3):
        watched.write(counts, pod=f"pod-{minute}", at=watched.now + timedelta(minutes=minute))
    hour = hour_of(watched.now)
    world.clock.pass_s(360)
    held, before = dict(world.blobs.held), world.fuse.calls
    rolling.roll_up(MODEL, watched.now, unchecked)
    names = [hourly_name(MODEL, hour), hourly_name(MODEL, hour + timedelta(hours=1))]
    calls, whole = world.fuse.calls - before, [rollup(watched, name) for name in names]
    assert [one.windows for one in whole] == [2, 1]
    for at in range(1, calls + 1):
        world.blobs.held = dict(held)
        world.fuse.at = world.fuse.calls + at
        with pytest.raises(Killed):
            rolling.roll_up(MODEL, watched.now, unchecked)
        rolling.roll_up(MODEL, watched.now, unchecked)
        assert [rollup(watched, name) for name in names] == whole


@pytest.mark.parametrize("data", [b"{", b"{}", b"2026-11-21T08:00:00Z"])
def test_how_far_was_looked_is_begun_anew_where_it_cannot_be_read(data: bytes) -> None:
    watched = Watched()
    rolling = Rolling(blobs=watched.world.blobs)
    watched.write({"1:stable": counted(watched.profile, rows_of(watched.rng, 20))})
    watched.world.blobs.put(ROLLUPS, f"{MODEL}/features-looked.json", data, {})
    assert [rolling.roll_up(MODEL, watched.now, unchecked) for _ in range(2)] == [1, 0]


def of_an_older_release() -> Watched:
    """A world whose roll-ups, of two days, lie beside the windows, which are gone."""
    watched = Watched()
    for _ in range(30):
        watched.hour(rows=20)
    blobs = watched.world.blobs
    del blobs.held[ROLLUPS, f"{MODEL}/features-looked.json"]
    for container, name in list(blobs.held):
        if container is BlobContainer.TELEMETRY:
            del blobs.held[container, name]
        elif container is ROLLUPS and "/features-" in name:
            blobs.held[BlobContainer.TELEMETRY, name] = blobs.held.pop((container, name))
    return watched


def rolled_up(watched: Watched) -> dict[str, int]:
    """The rows of each roll-up that there is, wherever."""
    held = watched.world.blobs.held
    found = [(name, blob) for (_, name), blob in held.items() if "/features-hourly/" in name or "-daily/" in name]
    return {name: FeatureRollup.model_validate_json(blob.data).versions["1:stable"].rows for name, blob in found}


def test_roll_ups_of_an_older_release_are_brought_killed_at_any_call() -> None:
    watched = of_an_older_release()
    world, before = watched.world, rolled_up(watched)
    assert len(before) > 30
    held, calls = dict(world.blobs.held), world.fuse.calls
    world.watching.rolling.roll_up(MODEL, watched.now, unchecked)
    calls = world.fuse.calls - calls
    for at in (None, *range(1, calls + 1, 7)):
        world.blobs.held = dict(held)
        if at is not None:
            world.fuse.at = world.fuse.calls + at
            with pytest.raises(Killed):
                world.watching.rolling.roll_up(MODEL, watched.now, unchecked)
        world.watching.rolling.roll_up(MODEL, watched.now, unchecked)
        assert rolled_up(watched) == before
        assert {container for container, name in world.blobs.held if "/features-" in name} == {ROLLUPS}
