"""What watching leaves behind is deleted when it is old, never what something stands on, whenever a process dies."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from shared.drift.inflation import LEAST_WINDOWS
from shared.registry.documents import Model
from shared.registry.drift_policy import DriftPolicy, Following, RetrainingPolicy
from shared.registry.policy import Policy, RetentionPolicy
from shared.retention import ages
from shared.retention.reports import GRACE, PLACE, ReportRetention
from shared.rollout.endpoint import Endpoint
from shared.store.aggregate import Aggregate
from shared.store.outbox import Outbox
from shared.store.ports import BlobContainer, Container
from shared.store.repository import Repository
from shared.telemetry.features import feature_window_blob_name
from shared.telemetry.window import window_blob_name
from shared.watching.alarms import end_all
from shared.watching.documents import DriftReport, Retraining, RetrainingState, drift_report_id
from shared.watching.gathering import LEARNED_DAYS, MOST_HOURS
from shared.watching.rolling import FARTHEST
from shared.watching.rollups import DAY, HOUR, ROLLUPS, daily_name, hourly_name
from tests.world.fakes import Killed
from tests.world.test_drift_following import drifting
from tests.world.watched import Watched
from tests.world.world import MODEL, World

KEPT = timedelta(days=60)
ASKING = DriftPolicy(span_h=2, retraining=RetrainingPolicy(enabled=True))


def repository[A: Aggregate](world: World, kind: type[A]) -> Repository[A]:
    return Repository(kind, world.documents, Outbox(world.documents, world.blobs, world.queues, world.clock))


def retention(world: World, *, reports: Repository[DriftReport] | None = None, most: int = 500) -> ReportRetention:
    return ReportRetention(
        models=repository(world, Model),
        endpoints=repository(world, Endpoint),
        reports=reports or repository(world, DriftReport),
        retraining=repository(world, Retraining),
        documents=world.documents,
        blobs=world.blobs,
        clock=world.clock,
        most_windows=most,
        most_blobs=most,
    )


def an_hour(world: World, tidying: ReportRetention | None = None) -> None:
    """The calls of an hour, in which every model has its turn."""
    for _ in range(60):
        world.clock.pass_s(60)
        (tidying or retention(world)).tidy()


def reported(*, hours: int, policy: DriftPolicy = ASKING, moved: dict[str, float] | None = None) -> Watched:
    watched = Watched(policy=policy)
    watched.world.put_policy(
        Policy(drift=policy, retention=RetentionPolicy(keep_reports_days=KEPT / timedelta(days=1)))
    )
    for _ in range(hours):
        watched.hour(rows=200, moved=moved)
    return watched


def blobs_of(world: World, container: BlobContainer, folder: str) -> set[str]:
    return {name for held, name in world.blobs.held if held is container and name.startswith(f"{MODEL}/{folder}")}


def reports_of(world: World) -> dict[str, set[str]]:
    """What there is of each report: its blobs, and `document`."""
    found: dict[str, set[str]] = {}
    for name in blobs_of(world, BlobContainer.REPORTS, "drift/"):
        report_id, _, kind = name.rpartition("/")[2].rpartition(".")
        found.setdefault(report_id, set()).add(kind)
    for _, _, identity in list(world.documents.held):
        if identity.startswith("drift-") and identity[-13:-12] == "-":
            found.setdefault(identity, set()).add("document")
    return found


WHOLE = {"html", "json", "document"}


def test_old_reports_go_whole_and_the_latest_of_each_version_stays() -> None:
    watched = reported(hours=3)
    before = reports_of(watched.world)
    assert (len(before), set(map(frozenset, before.values()))) == (3, {frozenset(WHOLE)})
    watched.world.clock.pass_s(KEPT.total_seconds())
    an_hour(watched.world)
    assert reports_of(watched.world) == before
    watched.world.clock.pass_s(timedelta(days=1).total_seconds())
    an_hour(watched.world)
    assert reports_of(watched.world) == {watched.latest.report_id: WHOLE}


def test_what_an_alarm_or_a_request_stands_on_stays_until_it_is_over() -> None:
    watched = reported(hours=4, moved={"income": 1.5})
    world = watched.world
    (request,) = world.watching.requests(MODEL).requests
    (episode,) = watched.report().alarms.values()
    assert request.report_id == episode.report_id != watched.latest.report_id
    world.clock.pass_s((KEPT + timedelta(days=2)).total_seconds())
    an_hour(world)
    both = {request.report_id: WHOLE, watched.latest.report_id: WHOLE}
    assert reports_of(world) == both
    repository(world, DriftReport).change(
        MODEL, watched.report().id, lambda one: end_all(one, "over", world.clock.now())
    )
    an_hour(world)
    assert reports_of(world) == both
    world.watching.mark_request(MODEL, request.request_id, RetrainingState.DONE, by="ann", reason="")
    an_hour(world)
    assert reports_of(world) == {watched.latest.report_id: WHOLE}


def test_what_a_rollout_under_way_was_held_by_stays() -> None:
    world = drifting(Following.HOLD)
    world.run(seconds=15)
    active = world.endpoint().active
    assert active is not None
    assert active.drift is not None
    # The alarm is over, and the rollout is held by it still.
    world.documents.held.pop((Container.REPORTS, MODEL, drift_report_id(2, "candidate")))
    for name in ("drift-2", "drift-3"):
        world.blobs.put(BlobContainer.REPORTS, f"{MODEL}/drift/2020-01-01/{name}.json", b"{}", {})
    an_hour(world)
    assert blobs_of(world, BlobContainer.REPORTS, "drift/2020") == {f"{MODEL}/drift/2020-01-01/drift-2.json"}


def test_killed_at_any_call_what_is_left_of_a_report_is_found_by_the_next() -> None:
    watched = reported(hours=3)
    world = watched.world
    world.clock.pass_s((KEPT + timedelta(days=2)).total_seconds())
    model, now = world.registry.model(MODEL), world.clock.now()
    documents, blobs, before = dict(world.documents.held), dict(world.blobs.held), world.fuse.calls
    retention(world).tidy_model(model, now)
    calls, left = world.fuse.calls - before, reports_of(world)
    assert left == {watched.latest.report_id: WHOLE}
    for at in range(1, calls + 1):
        world.documents.held, world.blobs.held = dict(documents), dict(blobs)
        world.fuse.at = world.fuse.calls + at
        with pytest.raises(Killed):
            retention(world).tidy_model(model, now)
        # Whatever there is of a report leads to the rest of it.
        assert all("json" in parts for parts in reports_of(world).values())
        retention(world).tidy_model(model, now)
        assert reports_of(world) == left


def test_a_call_deletes_a_bounded_number_and_what_is_kept_hides_nothing_behind_it() -> None:
    watched = reported(hours=1)
    world, latest = watched.world, watched.latest
    old = [f"{MODEL}/drift/2099-01-01/drift-{n}.json" for n in range(5)]
    for name in old:
        world.blobs.put(BlobContainer.REPORTS, name, b"{}", {})
    world.clock.pass_s(timedelta(days=36_500).total_seconds())
    left = []
    for _ in range(3):
        an_hour(world, retention(world, most=1))
        left.append(len(blobs_of(world, BlobContainer.REPORTS, "drift/2099")))
    assert left == [3, 1, 0]
    assert reports_of(world) == {latest.report_id: WHOLE}


def test_a_detector_s_state_that_no_document_names_goes_after_a_grace_and_the_one_that_is_named_stays() -> None:
    watched = reported(hours=1)
    world = watched.world
    for name in ("old", "named", "new"):
        world.blobs.put(BlobContainer.REPORTS, f"{MODEL}/drift-state/{name}.json", b"{}", {})
        if name == "named":
            world.clock.pass_s(GRACE.total_seconds())

    def is_named(report: DriftReport) -> bool:
        report.slow_blob = f"{MODEL}/drift-state/named.json"
        return True

    repository(world, DriftReport).change(MODEL, watched.report().id, is_named)
    world.clock.pass_s(60)
    retention(world).tidy_model(world.registry.model(MODEL), world.clock.now())
    kept = {f"{MODEL}/drift-state/{name}.json" for name in ("named", "new")}
    assert blobs_of(world, BlobContainer.REPORTS, "drift-state/") == kept


class NamedLater(Repository[DriftReport]):
    """While the documents are read, somebody stores a state again, which is named right after."""

    world: World

    def where(self, *, partition: str | None = None, **equal: str | int | bool) -> Iterator[DriftReport]:
        """See Repository."""
        found = list(super().where(partition=partition, **equal))
        assert self.world.blobs.touch(BlobContainer.REPORTS, f"{MODEL}/drift-state/again.json")
        return iter(found)


def test_a_state_that_is_stored_again_while_it_is_to_be_deleted_stays() -> None:
    watched = reported(hours=1)
    world = watched.world
    world.blobs.put(BlobContainer.REPORTS, f"{MODEL}/drift-state/again.json", b"{}", {})
    world.clock.pass_s((2 * GRACE).total_seconds())
    reports = NamedLater(DriftReport, world.documents, Outbox(world.documents, world.blobs, world.queues, world.clock))
    reports.world = world
    retention(world, reports=reports).tidy_model(world.registry.model(MODEL), world.clock.now())
    assert blobs_of(world, BlobContainer.REPORTS, "drift-state/") == {f"{MODEL}/drift-state/again.json"}


def test_windows_go_by_their_age_a_bounded_number_a_call_and_nothing_else_of_telemetry() -> None:
    watched = reported(hours=0)
    world, now = watched.world, watched.now
    young, old = now - timedelta(days=ages.WINDOW_DAYS - 1), now - timedelta(days=ages.WINDOW_DAYS + 2)
    for at in (young, old):
        for sequence in range(3):
            world.blobs.put(BlobContainer.TELEMETRY, window_blob_name(MODEL, at, "p", sequence), b"{}", {})
            world.blobs.put(BlobContainer.TELEMETRY, feature_window_blob_name(MODEL, at, "p", sequence), b"{}", {})
    world.blobs.put(BlobContainer.TELEMETRY, f"{MODEL}/{old:%Y-%m-%dT%H}/p-0000000009.json", b"{}", {})
    other = window_blob_name(f"{MODEL}-2", old, "p", 0)
    world.blobs.put(BlobContainer.TELEMETRY, other, b"{}", {})
    deleted = []
    for _ in range(3):
        deleted += [retention(world, most=4).tidy(), retention(world, most=4).tidy()]
        world.clock.pass_s(60)
    assert deleted == [4, 0, 3, 0, 0, 0], "once a minute"
    left = {name for held, name in world.blobs.held if held is BlobContainer.TELEMETRY}
    kept = {name(MODEL, young, "p", n) for n in range(3) for name in (window_blob_name, feature_window_blob_name)}
    assert left == kept | {other}


def with_models(*names: str) -> World:
    world = World()
    for name in names:
        world.documents.create(Container.MODELS, Model(model=name).to_body())
    return world


@pytest.mark.parametrize("every_s", [60, 90, 300, 3_600, 86_400])
def test_every_model_has_its_turn_however_often_calls_come(every_s: float) -> None:
    names = [f"m{number:02}" for number in range(70)]
    world = with_models(*names)
    retention(world).tidy()
    old = {f"{name}/drift/2020-01-01/drift-1.json" for name in names}
    for name in old:
        world.blobs.put(BlobContainer.REPORTS, name, b"{}", {})
    turns = []
    for _ in range(max(1, int(3_600 // every_s))):
        before = len(world.blobs.held)
        world.clock.pass_s(every_s)
        retention(world).tidy()
        turns.append(before - len(world.blobs.held))
    assert sum(turns) == len(names)
    # Nobody is looked at twice, nor all at one call where calls come often.
    assert max(turns) <= 2 * max(1, every_s / 60) + 2
    assert not {name for _, name in world.blobs.held} & old


@pytest.mark.parametrize("data", [b"\xff", b"", b"2999-01-01T00:00:00+00:00", b"2026-11-21T08:00:00"])
def test_when_the_last_call_was_is_begun_anew_where_it_cannot_be_told(data: bytes) -> None:
    world = with_models("m")
    world.blobs.put(BlobContainer.REPORTS, PLACE, data, {})
    world.blobs.put(BlobContainer.REPORTS, "m/drift/2020-01-01/drift-1.json", b"{}", {})
    an_hour(world)
    assert {name for _, name in world.blobs.held} == {PLACE}


def test_windows_that_one_endpoint_is_never_done_with_leave_the_others_their_share() -> None:
    world = with_models("a", "b", "c")
    old = world.clock.now() - timedelta(days=ages.WINDOW_DAYS + 2)

    def put(named: Callable[[str, datetime, str, int], str], endpoint: str, first: int, number: int) -> None:
        for sequence in range(first, first + number):
            world.blobs.put(BlobContainer.TELEMETRY, named(endpoint, old, "p", sequence), b"{}", {})

    def left(*folders: str) -> list[str]:
        held = [name for container, name in world.blobs.held if container is BlobContainer.TELEMETRY]
        return [name for name in held if name.startswith(folders)]

    put(window_blob_name, "b", 0, 10)
    for endpoint in ("a", "b"):
        put(feature_window_blob_name, endpoint, 0, 10)
    for at in range(60):
        put(window_blob_name, "a", 6 * at, 6)
        world.clock.pass_s(60)
        before = len(left("b/"))
        assert retention(world, most=5).tidy() <= 5
        assert len(left("b/")) < before or before == 0
    assert left("a/features/", "b/") == []


def test_roll_ups_go_by_their_age_and_days_long_after_their_hours() -> None:
    world = reported(hours=0).world
    now = datetime(2027, 6, 1, tzinfo=UTC)
    hours, days = [now - 12 * HOUR * n for n in range(200)], [now - DAY * n for n in range(400)]
    for name in [*(hourly_name(MODEL, hour) for hour in hours), *(daily_name(MODEL, day) for day in days)]:
        world.blobs.put(ROLLUPS, name, b"{}", {})
    retention(world).tidy_model(world.registry.model(MODEL), now)
    oldest = now - DAY * ages.HOURLY_DAYS
    assert blobs_of(world, ROLLUPS, "features-hourly/") == {hourly_name(MODEL, one) for one in hours if one >= oldest}
    oldest = now - DAY * ages.DAILY_DAYS
    assert blobs_of(world, ROLLUPS, "features-daily/") == {daily_name(MODEL, one) for one in days if one >= oldest}


def test_ages_are_no_less_than_what_is_needed() -> None:
    (longest_h,) = (limit.le for limit in DriftPolicy.model_fields["span_h"].metadata if hasattr(limit, "le"))
    longest = timedelta(hours=longest_h)
    assert timedelta(days=ages.WINDOW_DAYS_NEEDED) >= FARTHEST + 2 * DAY
    assert timedelta(days=ages.HOURLY_DAYS_NEEDED) >= max(longest, MOST_HOURS * HOUR, FARTHEST) + 2 * DAY
    assert timedelta(days=ages.DAILY_DAYS_NEEDED) >= max(LEARNED_DAYS * DAY, LEAST_WINDOWS * longest + longest) + DAY
    assert ages.WINDOW_DAYS >= ages.WINDOW_DAYS_NEEDED
    assert ages.HOURLY_DAYS >= ages.HOURLY_DAYS_NEEDED
    assert ages.DAILY_DAYS >= ages.DAILY_DAYS_NEEDED
