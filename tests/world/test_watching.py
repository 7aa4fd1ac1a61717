"""Watching in the small world: pods write feature windows, the timer looks, and what should follow follows."""

import json
import re
from datetime import timedelta

import numpy as np
import pytest

from shared.core.errors import ConflictError, NotFoundError
from shared.core.messages import Queue
from shared.core.verdict import Outcome
from shared.drift.inflation import LEAST_WINDOWS
from shared.registry.drift_policy import DriftPolicy, Following, RetrainingPolicy
from shared.rollout.documents import Rollout
from shared.rollout.machine import RolloutState
from shared.store.outbox import Outbox
from shared.store.ports import BlobContainer, Container
from shared.store.repository import Repository
from shared.telemetry.features import FeatureWindow, beside_key
from shared.telemetry.profile import Profile
from shared.watching.alarms import end_all
from shared.watching.concurrent import Common
from shared.watching.documents import Alarm, DriftReport, RetrainingState
from shared.watching.history import Reports
from shared.watching.rollups import ROLLUPS, FeatureRollup, hour_of, hourly_name
from tests.world.fakes import Killed
from tests.world.watched import NAMES, Watched, counted, rows_of
from tests.world.world import MODEL

ASKING = DriftPolicy(span_h=6, retraining=RetrainingPolicy(enabled=True))
MOVED = {"income": 1.5}


def rollup(watched: Watched, name: str) -> FeatureRollup:
    return FeatureRollup.model_validate_json(watched.world.blobs.held[ROLLUPS, name].data)


def queued(watched: Watched) -> list[dict[str, object]]:
    return [json.loads(body) for _, queue, body in watched.world.queues.messages if queue is Queue.RETRAINING]


def test_an_injected_drift_is_found_named_first_told_once_and_leads_to_one_request() -> None:
    watched = Watched(policy=ASKING)
    for _ in range(8):
        watched.hour()
    assert (watched.firing(), watched.latest.outcome) == ({}, Outcome.PASS)
    for _ in range(10):
        watched.hour(moved=MOVED)
    latest = watched.latest
    (finding,) = latest.findings
    assert (finding.outcome, finding.features[0].name) == (Outcome.FAIL, "income")
    assert latest.most_to_blame[0].name == "income"
    assert {name for name, psi in latest.psi.items() if psi > 2 * latest.psi_noise[name]} == {"income", "prediction"}
    assert watched.firing()["data_drift"] == 1
    (request,) = watched.world.watching.requests(MODEL).requests
    assert request.features[0] == "income"
    assert [message["request_id"] for message in queued(watched)] == [request.request_id]
    assert watched.world.audit.verify().verified


def test_a_daily_cycle_is_no_drift_in_the_first_hours_and_a_drift_that_stays_is_one_after_half_the_span() -> None:
    watched = Watched(policy=DriftPolicy(span_h=12, retraining=RetrainingPolicy(enabled=True)))
    for hour in range(5):
        watched.hour(moved={"age": 1.5})
        latest = watched.latest
        assert latest.findings[0].outcome is Outcome.INCONCLUSIVE
        assert f"its first rows came {hour + 1} of the span's 12 hours ago" in latest.sentences[0]
        assert latest.findings[0].features[0].name == "age"
    assert (watched.firing(), watched.world.watching.requests(MODEL).requests) == ({}, [])
    watched.hour(moved={"age": 1.5})
    assert watched.firing() == {"data_drift": 1}


def test_an_endpoint_that_is_asked_an_hour_a_day_is_told_of_its_drift() -> None:
    watched = Watched(policy=DriftPolicy(span_h=12))
    watched.hour(moved={"age": 1.5})
    for _ in range(5):
        assert watched.firing() == {}
        watched.world.clock.pass_s(3_600)
        watched.look()
    assert watched.firing() == {"data_drift": 1}


def test_an_alarm_is_over_once_several_reports_find_nothing() -> None:
    watched = Watched(policy=ASKING)
    for _ in range(7):
        watched.hour(moved=MOVED)
    assert "data_drift" in watched.firing()
    outcomes = []
    while watched.firing():
        watched.hour()
        outcomes.append(watched.latest.findings[0].outcome)
    assert outcomes[-4:] == [Outcome.FAIL, Outcome.PASS, Outcome.PASS, Outcome.PASS]
    kinds = [event.kind for event in watched.world.audit.events("drift_report:digits:1:stable")]
    assert kinds == ["alarm_raised", "alarm_over"]


def test_a_day_and_a_half_without_drift_is_quiet() -> None:
    watched = Watched(policy=DriftPolicy(span_h=6), seed=5)
    for _ in range(36):
        watched.hour(rows=150)
    assert watched.world.alerts.alerts().items == []
    assert watched.latest.outcome is Outcome.PASS


@pytest.mark.long
def test_weeks_without_drift_are_quiet_although_hours_have_levels_of_their_own() -> None:
    fired = 0
    for seed in range(2):
        watched = Watched(policy=DriftPolicy(), seed=seed)
        level = dict.fromkeys(NAMES, 0.0)
        for _ in range(24 * 14):
            steps = watched.rng.normal(size=len(NAMES)) * 0.1
            level = {name: 0.7 * level[name] + step for name, step in zip(NAMES, steps, strict=True)}
            watched.hour(rows=400, moved=level)
        fired += len(watched.world.alerts.alerts().items)
    # Four weeks: a false alarm of the detector is to be expected once in thirteen, and none of the reports.
    assert fired <= 1


def told(watched: Watched) -> object:
    """All that a story leaves behind for somebody to see, but for the times at which it was written."""
    report = watched.report()
    assert report.latest is not None
    return (
        report.latest.model_dump(mode="json", exclude={"made_at", "findings"}),
        report.slow_until,
        {alarm: episode.model_dump(mode="json") for alarm, episode in report.alarms.items()},
        dict.fromkeys(watched.firing(), True),
        [request.request_id for request in watched.world.watching.requests(MODEL).requests],
        {message["request_id"] for message in queued(watched)},
        [event.kind for event in watched.world.audit.events(report.stream)],
        rollup(watched, hourly_name(MODEL, hour_of(watched.now) - timedelta(hours=1))),
    )


def at_the_last_look(policy: DriftPolicy) -> Watched:
    """Six hours of drift, of which the last is not looked at yet."""
    watched = Watched(policy=policy)
    for _ in range(5):
        watched.hour(rows=120, moved=MOVED)
    watched.world.clock.pass_s(1_800)
    watched.write({"1:stable": counted(watched.profile, rows_of(watched.rng, 120, MOVED))})
    watched.world.clock.pass_s(1_800 + 240)
    assert watched.firing() == {}
    return watched


ALMOST = ASKING.model_copy(update={"min_rows": 700})
"""Six hours have as many rows, and five have not."""


def test_killed_at_any_call_the_next_look_leaves_the_same_behind() -> None:
    watched = at_the_last_look(ALMOST)
    world = watched.world
    documents, blobs, messages = dict(world.documents.held), dict(world.blobs.held), list(world.queues.messages)
    before = world.fuse.calls
    world.watching.watch()
    calls = world.fuse.calls - before
    world.sweep.sweep()
    wanted = told(watched)
    assert watched.firing() == {"data_drift": 1}
    assert calls > 20
    for call in range(1, calls + 1, 9):
        world.documents.held, world.blobs.held = dict(documents), dict(blobs)
        world.queues.messages = list(messages)
        world.fuse.at = world.fuse.calls + call
        with pytest.raises((Killed, BaseExceptionGroup)):
            world.watching.watch()
        world.fuse.at = None
        world.watching.watch()
        world.sweep.sweep()
        assert told(watched) == wanted, f"killed at call {call}"


def test_two_timers_at_once_leave_what_one_does() -> None:
    one, both = at_the_last_look(ALMOST), at_the_last_look(ALMOST)
    one.world.watching.watch()
    # The other timer comes in between, before each of the first conditional writes.
    both.world.documents.other_writers = [both.world.watching.watch, lambda: None, both.world.watching.watch]
    both.world.watching.watch()
    both.world.watching.watch()
    assert told(both) == told(one)


def with_candidate(watched: Watched, *, hours: int, profile: Profile | None = None) -> None:
    """Have version 2 be rolled out to a part of the traffic."""
    stored = watched.world.documents.held[Container.ENDPOINTS, MODEL, "endpoint"]
    body = dict(stored.body)
    rollout = Rollout(
        rollout_id="rollout-000002-x",
        command_id="c",
        candidate=watched.target(2, profile),
        stable=watched.target(1),
        policy=watched.world.registry.model(MODEL).policy.rollout,
        state=RolloutState.PROGRESSING,
        stage=0,
        started_at=watched.now,
        published_at=watched.now,
        next_tick_at=watched.now + timedelta(hours=hours),
        requested_by="test",
    )
    body["rollout"] = rollout.model_dump(mode="json")
    watched.world.documents.replace(Container.ENDPOINTS, body, etag=stored.etag)


def rolled_out(watched: Watched, *, stable: float, candidate: float, rows: int = 400) -> None:
    """Ten minutes of traffic of both versions, income being moved, and a look."""
    watched.world.clock.pass_s(600)
    watched.write(
        {
            "1:stable": counted(watched.profile, rows_of(watched.rng, rows * 3, {"income": stable})),
            "2:candidate": counted(watched.profile, rows_of(watched.rng, rows, {"income": candidate})),
        }
    )
    watched.world.watching.watch()


def rolled_out_anew(
    watched: Watched, of: Profile, *, stable: float = 0.0, candidate: float = 0.0, rows: int = 300
) -> None:
    """Ten minutes beside a candidate that was validated on newer data, as the pods count them, and a look.

    It answers otherwise too, as another version will.
    """
    watched.world.clock.pass_s(600)
    theirs, own = (rows_of(watched.rng, n, {"income": by}) for n, by in ((rows * 3, stable), (rows, candidate)))
    watched.write(
        {
            "1:stable": counted(watched.profile, theirs),
            beside_key("1:stable", of.id): counted(of, theirs),
            "2:candidate": counted(of, {**own, "label": own["x"][:, 2:3] * 7.0}),
        }
    )
    watched.world.watching.watch()


def newer(watched: Watched) -> Profile:
    """The profile of a version that was validated on a later season's data: no bin is the same."""
    reference = rows_of(watched.rng, 4_000, {"income": 1.0, "age": -0.5})
    found = watched.profiled({**reference, "label": reference["x"][:, 2:3] * 7.0})
    assert Common(watched.profile, found).profile.features == ()
    return found


def test_a_candidate_of_other_reference_data_is_compared_in_its_own_bins_and_a_season_is_none_of_its_fault() -> None:
    watched = Watched()
    watched.hour()
    of = newer(watched)
    with_candidate(watched, hours=9, profile=of)
    for at in range(8):
        rolled_out_anew(watched, of, stable=at / 5, candidate=at / 5)
        assert concurrent(watched) == (Outcome.PASS, [])
    latest = watched.report(2, "candidate").latest
    assert latest is not None
    (said,) = (sentence for sentence in latest.sentences if sentence.startswith("beside version 1"))
    assert said.endswith("; not compared, since not counted in the same bins, are 1 of 8")
    assert "concurrent_drift" not in watched.firing()
    # In stable's own report each row is there once.
    watched.hour()
    assert watched.latest.rows == 300 + 8 * 900 + 300


def test_a_drift_of_the_candidate_of_other_reference_data_is_found_within_a_look() -> None:
    watched = Watched()
    watched.hour()
    of = newer(watched)
    with_candidate(watched, hours=9, profile=of)
    rolled_out_anew(watched, of)
    assert "concurrent_drift" not in watched.firing()
    rolled_out_anew(watched, of, candidate=2.5)
    outcome, features = concurrent(watched)
    assert (outcome, features[0]) == (Outcome.FAIL, "income")
    assert watched.firing()["concurrent_drift"] == 1


def test_until_a_pod_counts_stable_in_the_candidates_bins_nothing_is_concluded() -> None:
    watched = Watched()
    watched.hour()
    of = newer(watched)
    with_candidate(watched, hours=9, profile=of)
    watched.world.clock.pass_s(600)
    key = beside_key("1:stable", of.id)
    rows = rows_of(watched.rng, 500)
    # What is named as counted by one profile, and is by another, is left out.
    watched.write({"2:candidate": counted(of, rows), key: counted(watched.profile, rows)})
    watched.world.watching.watch()
    assert concurrent(watched) == (Outcome.INCONCLUSIVE, [])
    assert rollup(watched, hourly_name(MODEL, hour_of(watched.now))).left_out == 1


def concurrent(watched: Watched) -> tuple[Outcome, list[str]]:
    finding = watched.world.watching.reports.finding(MODEL, 2, "candidate", "concurrent")
    assert finding is not None
    return finding.outcome, [feature.name for feature in finding.features]


def test_a_season_that_moves_both_versions_is_no_fault_of_the_candidates() -> None:
    watched = Watched()
    watched.hour()
    with_candidate(watched, hours=9)
    for at in range(20):
        rolled_out(watched, stable=at / 10, candidate=at / 10)
    assert concurrent(watched) == (Outcome.PASS, [])
    assert "concurrent_drift" not in watched.firing()


def test_a_drift_of_the_candidate_alone_is_found_within_a_look() -> None:
    watched = Watched()
    watched.hour()
    with_candidate(watched, hours=9)
    rolled_out(watched, stable=1.0, candidate=1.0)
    assert "concurrent_drift" not in watched.firing()
    rolled_out(watched, stable=1.0, candidate=3.0)
    assert concurrent(watched) == (Outcome.FAIL, ["income"])
    assert watched.firing()["concurrent_drift"] == 1


@pytest.mark.parametrize(
    ("rows", "hours", "moved", "follows"),
    [
        (1_200, 2, "income", True),
        (1_201, 2, "income", False),
        (1_200, 3, "income", False),
        (1_200, 2, None, False),
    ],
)
def test_something_follows_a_drift_of_inputs_alone_and_of_rows_and_hours_enough(
    rows: int, hours: int, moved: str | None, *, follows: bool
) -> None:
    policy = DriftPolicy(following=Following.HOLD, following_min_rows=rows, following_min_hours=hours)
    watched = Watched(policy=policy)
    watched.hour()
    with_candidate(watched, hours=9)
    for _ in range(2):
        watched.world.clock.pass_s(1_800)
        own = rows_of(watched.rng, 600, {moved: 2.0} if moved else {})
        own = own if moved else {**own, "label": 1 - own["label"] * 0}
        stable = rows_of(watched.rng, 900)
        watched.write({"1:stable": counted(watched.profile, stable), "2:candidate": counted(watched.profile, own)})
        watched.world.clock.pass_s(1_800)
        watched.look()
    assert concurrent(watched)[0] is Outcome.FAIL
    assert watched.report(2, "candidate").alarms[Alarm.CONCURRENT_DRIFT].may_follow is follows


def taken_off(watched: Watched) -> None:
    """The rollout is over, and nothing came of it."""
    stored = watched.world.documents.held[Container.ENDPOINTS, MODEL, "endpoint"]
    watched.world.documents.replace(Container.ENDPOINTS, {**stored.body, "rollout": None}, etag=stored.etag)


@pytest.mark.parametrize("hours_between", [0, 5])
def test_what_an_earlier_rollout_of_the_version_was_asked_is_not_held_against_a_new_one(hours_between: int) -> None:
    watched = Watched()
    watched.hour()
    with_candidate(watched, hours=9)
    rolled_out(watched, stable=0.0, candidate=0.0)
    rolled_out(watched, stable=0.0, candidate=2.0)
    assert concurrent(watched)[0] is Outcome.FAIL
    taken_off(watched)
    for _ in range(hours_between):
        watched.hour()
    watched.world.clock.pass_s(300)
    with_candidate(watched, hours=9)
    for _ in range(8):
        rolled_out(watched, stable=0.0, candidate=0.0)
        assert concurrent(watched)[0] is not Outcome.FAIL
        assert "concurrent_drift" not in watched.firing()
    assert concurrent(watched)[0] is Outcome.PASS
    # And what is wrong with the new one is found.
    rolled_out(watched, stable=0.0, candidate=3.0, rows=1_500)
    outcome, features = concurrent(watched)
    assert (outcome, features[0]) == (Outcome.FAIL, "income")
    assert "concurrent_drift" in watched.firing()


def test_hours_of_an_earlier_rollout_teach_nothing_about_what_is_usual_in_a_new_one() -> None:
    watched = Watched(policy=DriftPolicy(span_h=1))
    watched.hour()

    def learned() -> int:
        report = watched.report(2, "candidate")
        assert report.latest is not None
        details = json.loads(watched.world.watching.reports.json(MODEL, report.latest.report_id))
        found = details["quality"]["healthy_windows"]
        assert isinstance(found, int)
        return found

    for learns in (True, False):
        with_candidate(watched, hours=20)
        for _ in range(11 if learns else 3):
            watched.hour(key="2:candidate")
        assert (learned() >= LEAST_WINDOWS) == learns
        taken_off(watched)
        watched.hour()


def test_a_drift_is_told_at_the_next_look_although_the_latest_report_fails_and_its_alarm_was_ended() -> None:
    watched = Watched()
    watched.hour()
    with_candidate(watched, hours=9)
    rolled_out(watched, stable=0.0, candidate=2.0)
    report = watched.report(2, "candidate")
    stored = watched.world.documents.held[Container.REPORTS, MODEL, report.id]
    ended = DriftReport.from_body(stored.body)
    assert end_all(ended, "as another call did that died after it", watched.now)
    watched.world.documents.replace(Container.REPORTS, ended.to_body(), etag=stored.etag)
    rolled_out(watched, stable=0.0, candidate=2.0)
    assert "concurrent_drift" in watched.report(2, "candidate").alarms


def test_a_version_that_serves_no_more_raises_no_alarm_any_more() -> None:
    watched = Watched()
    watched.hour()
    with_candidate(watched, hours=9)
    rolled_out(watched, stable=0.0, candidate=2.0)
    assert "concurrent_drift" in watched.firing()
    taken_off(watched)
    watched.hour()
    assert "concurrent_drift" not in watched.firing()


def test_a_version_without_a_profile_is_reported_on_once_and_inconclusive() -> None:
    watched = Watched()
    stored = watched.world.documents.held[Container.ENDPOINTS, MODEL, "endpoint"]
    body = {**stored.body, "stable": {**stored.body["stable"], "profile_digest": None}}
    watched.world.documents.replace(Container.ENDPOINTS, body, etag=stored.etag)
    for _ in range(3):
        watched.world.clock.pass_s(3_600)
        watched.look()
    latest = watched.latest
    assert (latest.outcome, latest.rows) == (Outcome.INCONCLUSIVE, 0)
    assert "validate it with reference data" in latest.sentences[0]
    assert len(watched.world.watching.reports.since(MODEL, watched.now - timedelta(days=1), watched.now)) == 1


def test_constant_missing_and_infinite_features_give_a_report_without_nan() -> None:
    watched = Watched(policy=DriftPolicy(span_h=1))
    for values in (0.0, np.nan, np.inf, -np.inf):
        table = np.full((200, len(NAMES)), values)
        watched.world.clock.pass_s(600)
        watched.write({"1:stable": counted(watched.profile, {"x": table, "label": np.zeros((200, 1))})})
    watched.world.watching.report_now(MODEL)
    report_id = watched.latest.report_id
    found = watched.world.watching.reports.json(MODEL, report_id)
    details = json.loads(found, parse_constant=lambda text: pytest.fail(f"{text} is in the report"))
    assert details["outcome"] == "fail"
    assert {feature["missing_share"] for feature in details["features"] if feature["source"] == "column"} == {0.25}
    page = watched.world.watching.reports.page(MODEL, report_id).decode()
    assert not re.search(r"\bnan\b", page, re.IGNORECASE), re.findall(r".{40}\bnan\b.{40}", page)


def test_reports_are_listed_from_a_time_on_and_read_by_their_id() -> None:
    watched = Watched(policy=DriftPolicy(span_h=6))
    begun = watched.now
    for _ in range(5):
        watched.hour()
    reports = watched.world.watching.reports
    found = reports.since(MODEL, begun + timedelta(hours=3), watched.now)
    assert [record.report.until - begun for record in found] == [timedelta(hours=hour) for hour in (3, 4, 5)]
    assert reports.one(MODEL, found[-1].id).report == watched.latest
    assert b"<h2>Verdicts</h2>" in reports.page(MODEL, found[0].id)
    with pytest.raises(NotFoundError, match="does not exist"):
        reports.page(MODEL, "drift-000000001-stable-20261121T0800-000000000000")


def test_of_more_reports_than_are_listed_the_latest_are_whatever_their_versions() -> None:
    watched = Watched()
    watched.hour()
    world, made = watched.world, watched.latest
    (record,) = world.watching.reports.since(MODEL, watched.now - timedelta(days=1), watched.now)
    day = made.until.replace(hour=0, minute=0) - timedelta(days=1)
    expected = []
    for hour in range(6):
        for version in (1, 2):
            until = day + timedelta(hours=hour)
            identity = f"drift-{version:09d}-stable-{until:%Y%m%dT%H%M}-0123456789ab"
            report = record.report.model_copy(update={"report_id": identity, "until": until, "made_at": until})
            body = record.model_copy(update={"id": identity, "version": version, "report": report})
            world.documents.create(Container.REPORTS, body.model_dump(mode="json"))
            world.blobs.create(BlobContainer.REPORTS, f"{MODEL}/drift/{until:%Y-%m-%d}/{identity}.json", b"{}")
            expected.append((hour, version))
    reports = Reports(
        reports=Repository(
            DriftReport, world.documents, Outbox(world.documents, world.blobs, world.queues, world.clock)
        ),
        documents=world.documents,
        blobs=world.blobs,
        most_records=4,
    )
    found = reports.since(MODEL, day, day + timedelta(hours=23))
    assert [(one.report.until.hour, one.version) for one in found] == expected[-4:]


def test_a_report_that_was_asked_for_stays_the_latest_when_that_of_the_hour_before_is_made() -> None:
    watched = Watched(policy=DriftPolicy(span_h=6))
    watched.hour()
    watched.world.clock.pass_s(3_600 + 120)
    watched.write({"1:stable": counted(watched.profile, rows_of(watched.rng, 50))})
    (asked,) = watched.world.watching.report_now(MODEL)
    watched.world.clock.pass_s(120)
    watched.world.watching.watch()
    assert asked.latest is not None
    assert watched.latest == asked.latest
    assert watched.report().hourly_until == hour_of(watched.now)


def test_retraining_is_asked_for_again_only_after_the_request_is_over_the_cooldown_past_and_within_the_budget() -> None:
    limits = RetrainingPolicy(enabled=True, cooldown_h=10, most_in_30_days=2)
    watched = Watched(policy=DriftPolicy(span_h=1, retraining=limits))
    watching = watched.world.watching

    def episode() -> int:
        """Some hours of drift, and then none until no alarm stands; the requests after it."""
        for _ in range(3):
            watched.hour(moved=MOVED)
        for _ in range(4):
            watched.hour()
        assert watched.firing() == {}
        return len(watching.requests(MODEL).requests)

    assert [episode(), episode()] == [1, 1]
    (first,) = watching.requests(MODEL).requests
    watching.mark_request(MODEL, first.request_id, RetrainingState.DONE, by="ann", reason="trained")
    with pytest.raises(ConflictError, match="a new alarm makes a new request"):
        watching.mark_request(MODEL, first.request_id, RetrainingState.OPEN, by="ann", reason="")
    assert episode() == 2
    for request in watching.requests(MODEL).requests[1:]:
        watching.mark_request(MODEL, request.request_id, RetrainingState.REFUSED, by="ann", reason="a season")
    assert [episode(), episode()] == [2, 2]
    assert len(queued(watched)) == 2
    assert watched.world.audit.verify().verified


def test_a_later_alarm_leads_to_a_request_although_an_older_one_stands_whose_request_was_refused() -> None:
    limits = RetrainingPolicy(enabled=True, cooldown_h=0)
    watched = Watched(policy=DriftPolicy(span_h=1, retraining=limits))
    watched.hour(moved=MOVED)
    watching = watched.world.watching
    (first,) = watching.requests(MODEL).requests
    watching.mark_request(MODEL, first.request_id, RetrainingState.REFUSED, by="ann", reason="a campaign")
    watched.hour(moved=MOVED)
    assert len(watching.requests(MODEL).requests) == 1
    report = watched.report()
    stored = watched.world.documents.held[Container.REPORTS, MODEL, report.id]
    drop = report.alarms[Alarm.DATA_DRIFT].model_copy(update={"since": watched.now, "sentence": "accuracy fell"})
    changed = report.model_copy(update={"alarms": {**report.alarms, Alarm.PERFORMANCE_DROP: drop}})
    watched.world.documents.replace(Container.REPORTS, changed.to_body(), etag=stored.etag)
    for _ in range(2):
        watched.hour(moved=MOVED)
    assert [one.alarm for one in watching.requests(MODEL).requests] == [Alarm.DATA_DRIFT, Alarm.PERFORMANCE_DROP]


def test_nothing_new_costs_a_few_calls() -> None:
    watched = Watched()
    for _ in range(3):
        watched.hour()
    watched.look()
    before = watched.world.fuse.calls
    watched.look()
    assert watched.world.fuse.calls - before <= 17


def test_watching_goes_on_where_one_endpoint_is_broken() -> None:
    watched = Watched()
    body = dict(watched.world.documents.held[Container.ENDPOINTS, MODEL, "endpoint"].body)
    watched.world.documents.create(Container.ENDPOINTS, {**body, "endpoint": "broken"})
    watched.write({"1:stable": counted(watched.profile, rows_of(watched.rng, 200))})
    with pytest.raises(ExceptionGroup, match="not all could be watched"):
        watched.world.watching.watch()
    assert rollup(watched, hourly_name(MODEL, hour_of(watched.now))).versions["1:stable"].rows == 200


def test_a_report_that_cannot_be_followed_keeps_no_other_from_being_followed() -> None:
    watched = Watched(policy=DriftPolicy(span_h=1))
    watched.hour(moved=MOVED)
    assert watched.firing() == {"data_drift": 1}
    gone = watched.report().model_copy(update={"model": "aaa-gone", "endpoint": "aaa-gone"})
    stored = watched.world.documents.create(Container.REPORTS, gone.to_body())
    assert stored
    for _ in range(4):
        with pytest.raises(ExceptionGroup, match="not all could be watched"):
            watched.hour()
    # That of the model that is there is over.
    assert [alert.model for alert in watched.world.alerts.alerts("firing").items] == ["aaa-gone"]


def test_watching_goes_on_where_one_endpoint_fails_as_nobody_foresaw() -> None:
    watched = Watched()
    watched.hour()
    other = watched.world.documents.held[Container.ENDPOINTS, MODEL, "endpoint"].body
    watched.world.documents.create(Container.ENDPOINTS, {**other, "endpoint": "zzz"})
    report = watched.report()
    stored = watched.world.documents.held[Container.REPORTS, MODEL, report.id]
    watched.world.documents.replace(Container.REPORTS, {**stored.body, "alarms": 7}, etag=stored.etag)
    name = watched.write({"1:stable": counted(watched.profile, rows_of(watched.rng, 50))})
    window = FeatureWindow.model_validate_json(watched.world.blobs.held[BlobContainer.TELEMETRY, name].data)
    data = window.model_copy(update={"endpoint": "zzz"}).model_dump_json().encode()
    watched.world.blobs.put(BlobContainer.TELEMETRY, name.replace(MODEL, "zzz", 1), data, {})
    with pytest.raises(ExceptionGroup, match="not all could be watched"):
        watched.world.watching.watch()
    found = watched.world.blobs.held[ROLLUPS, hourly_name("zzz", hour_of(watched.now))]
    assert FeatureRollup.model_validate_json(found.data).windows == 1
