"""The rules of alerts on traffic: what each measures, when it is broken, and when nothing can be said."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from shared.alerts.documents import AlertRule
from shared.alerts.rules import BEHIND, FRESH, Judged, judge
from shared.budgets.sums import RequestSums, counted
from shared.core.severity import Severity
from shared.registry.alert_policy import AlertMetric, AlertRulePolicy
from shared.registry.policy import Policy
from shared.telemetry.feedback import FeedbackCounts
from shared.telemetry.histogram import bucket_index
from shared.telemetry.window import Deaths, VersionCounts, Window

NOW = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)


def window(
    pod: str = "a", *, ago_s: float = 10, requests: int = 1_000, errors: int = 0, ms: float = 5.0, **more: Any
) -> Window:
    at = NOW - timedelta(seconds=ago_s)
    answered = requests - errors
    counts = VersionCounts(
        requests=requests, errors=errors, latency_ms={bucket_index(ms): answered} if answered else {}
    )
    given = {
        "endpoint": "m",
        "pod": pod,
        "sequence": 10_000 - round(ago_s),
        "generation": 1,
        "started_at": at,
        "ended_at": at,
        "loaded": [1],
        "versions": {1: counts},
    }
    return Window.model_validate(given | more)


def judged(*windows: Window, own: tuple[AlertRulePolicy, ...] = (), now: datetime = NOW) -> dict[str, Judged]:
    sums = counted(RequestSums(endpoint="m", since=NOW - timedelta(hours=1)), windows, NOW, is_all=True)
    found = list(judge("m", sums, own, now))
    return {one.subject if one.rule is AlertRule.POLICY else one.rule.value: one for one in found}


def broken(*windows: Window, **given: Any) -> list[str]:
    return [name for name, one in judged(*windows, **given).items() if one.is_broken]


def test_a_healthy_endpoint_breaks_no_rule() -> None:
    found = judged(window(), window("b", memory_share=0.5))
    assert {name: one.is_broken for name, one in found.items()} == dict.fromkeys(
        ["error_rate", "slow", "unhealthy", "resources"], False
    )


@pytest.mark.parametrize(("errors", "is_broken"), [(50, False), (51, True)])
def test_more_than_five_percent_of_failed_requests_is_too_many(errors: int, is_broken: bool) -> None:  # noqa: FBT001
    one = judged(window(errors=errors))["error_rate"]
    assert one.is_broken is is_broken
    assert one.severity is Severity.CRITICAL
    if is_broken:
        assert one.sentence == (
            "m: error_rate is 0.051 (5.10%) (51 of 1000 requests failed in the last 5 minutes), above 0.05 (5.00%)"
        )


def test_a_p95_over_two_seconds_is_slow_and_one_slow_request_in_a_hundred_is_not() -> None:
    assert broken(window(ms=2_100)) == ["slow"]
    assert broken(window(ms=1_900)) == []
    assert broken(window(requests=99), window("b", requests=1, ms=60_000)) == []


@pytest.mark.parametrize(
    "ailing",
    [
        {"failed": {3: "it is damaged"}},
        {"tripped": {3: "it fails"}},
        {"deaths": Deaths(rollout_id="r", processes={3: 2})},
    ],
)
def test_a_pod_that_something_ails_is_told_with_what_it_is(ailing: dict[str, Any]) -> None:
    one = judged(window("good"), window("bad", **ailing))["unhealthy"]
    assert one.is_broken
    assert "healthy_share is 0.5 (50.00%) (of 2 pods: bad " in one.sentence
    # Its next window is well.
    assert broken(window("bad", ago_s=60, **ailing), window("bad")) == []


def test_one_process_that_died_is_no_alert_and_pods_that_all_fell_silent_are() -> None:
    assert broken(window(deaths=Deaths(rollout_id="r", processes={3: 1}))) == []
    silent = FRESH + timedelta(seconds=30)
    one = judged(window("a", ago_s=silent.total_seconds()), window("b", ago_s=silent.total_seconds()))["unhealthy"]
    assert one.is_broken
    assert "none of 2 reports any more" in one.sentence
    # A pod that is gone while others report was scaled in.
    assert broken(window("a"), window("b", ago_s=silent.total_seconds())) == []


def test_where_more_pods_fell_silent_than_still_report_it_is_told_until_they_are_taken_for_gone() -> None:
    def share(silent: int, *, fresh: int, ago_s: float = 600, place: str = "old") -> str:
        gone = [window(f"{place}{number}-5f3a9c-0", ago_s=ago_s) for number in range(silent)]
        one = judged(*gone, *(window(f"new{number}-77777a-0") for number in range(fresh)))["unhealthy"]
        return one.sentence if one.is_broken else ""

    assert "healthy_share is 0.1111 (11.11%) (of 9 pods: old1-5f3a9c-0 reports no more; " in share(9, fresh=1)
    assert "and 5 more" in share(9, fresh=1)
    # They were replaced, or half of them were taken away.
    assert share(10, fresh=10) == ""
    assert share(5, fresh=5) == ""
    # A process that took another's place reports for it.
    assert share(2, fresh=1, place="new") == ""
    assert share(9, fresh=1, ago_s=901) == ""


def test_pods_that_stopped_as_they_were_told_to_are_not_missed_and_those_that_died_are() -> None:
    stopped = [window(f"old{number}-5f3a9c-0", ago_s=600, is_last=True) for number in range(9)]
    one = judged(*stopped, window("new-77777a-0"))["unhealthy"]
    assert (one.is_broken, one.sentence) == (False, "healthy_share is 1 (100.00%) (of 1 pods)")
    # To zero: nobody is missed, and what ailed one that stopped is over.
    none_left = judged(*stopped, window("ill", ago_s=30, is_last=True, failed={2: "no memory"}))
    assert none_left["unhealthy"].is_broken is False
    assert "the last of 10 stopped, as they were told to" in none_left["unhealthy"].sentence
    died = [window(f"dead{number}-5f3a9c-0", ago_s=600) for number in range(2)]
    assert judged(*stopped, *died, window("new-77777a-0"))["unhealthy"].is_broken
    assert judged(*stopped, *died)["unhealthy"].is_broken
    # The memory of one that is gone is nobody's concern.
    assert judged(window("full", memory_share=0.95, is_last=True), window("b"))["resources"].is_broken is False


def test_a_place_that_is_started_and_told_to_stop_again_and_again_ails_and_scaling_in_is_no_trouble() -> None:
    def stops(starts: int) -> list[Window]:
        return [
            window(f"srv-5f3a0{start}-{n}", ago_s=60 * start, is_last=True) for start in range(starts) for n in (0, 1)
        ]

    assert judged(*stops(2))["unhealthy"].is_broken is False
    alone = judged(*stops(3))["unhealthy"]
    assert (alone.is_broken, "(of 1 pods: srv was told to stop 3 times of late)" in alone.sentence) == (True, True)
    beside = judged(*stops(3), window("well-77777a-0"))["unhealthy"]
    assert "healthy_share is 0.5 (50.00%) (of 2 pods: srv was told to stop" in beside.sentence
    started = judged(*stops(3), window("srv-77777a-0"))["unhealthy"]
    assert "(of 1 pods: srv-77777a-0 was told to stop 3 times of late)" in started.sentence
    # Long ago, or each in a place of its own, as pods that are scaled in are.
    long_ago = [window(f"srv-5f3a0{start}-0", ago_s=1_000, is_last=True) for start in range(5)]
    apart = [window(f"srv{start}-5f3a0{start}-0", is_last=True) for start in range(5)]
    assert judged(*long_ago, *apart, window("well-77777a-0"))["unhealthy"].is_broken is False


def test_a_window_of_an_earlier_release_is_not_the_last() -> None:
    body = window("a").model_dump(mode="json")
    del body["is_last"]
    assert Window.model_validate(body).is_last is False


def test_pods_whose_windows_are_not_counted_yet_are_not_taken_for_silent() -> None:
    later = NOW + FRESH + timedelta(minutes=1)
    found = judged(window("a", memory_share=0.95), window("b"), now=later)
    assert found["unhealthy"].is_broken is False
    assert found["resources"].is_broken


def test_memory_and_refused_requests_are_resources() -> None:
    one = judged(window(), window("full", memory_share=0.95))["resources"]
    assert one.is_broken
    assert "which the pod full uses" in one.sentence
    assert judged(window(refused={"overloaded": 60}))["resources"].is_broken
    assert judged(window(refused={"overloaded": 60}, memory_share=0.5))["resources"].is_broken
    assert broken(window(refused={"overloaded": 40, "invalid": 500})) == []


def test_too_little_says_nothing_and_no_request_at_all_that_none_fails() -> None:
    assert judged(window(requests=19, errors=19))["error_rate"].is_broken is None
    assert judged(window(requests=0))["error_rate"].is_broken is False
    assert judged(window(ago_s=400, errors=1_000))["error_rate"].is_broken is False


def test_where_windows_are_not_counted_nothing_is_said() -> None:
    late = judged(window(errors=1_000), now=NOW + BEHIND + timedelta(seconds=1))
    assert {one.is_broken for one in late.values()} == {None}
    assert {one.is_broken for one in judge("m", None, (), NOW)} == {None}


def rule(metric: AlertMetric, **given: Any) -> AlertRulePolicy:
    return AlertRulePolicy(name="own", metric=metric, **given)


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        (AlertMetric.ERROR_RATE, 0.02),
        (AlertMetric.REFUSED_RATE, 1 / 11),
        (AlertMetric.P50_MS, 40.0),
        (AlertMetric.P99_MS, 40.0),
        (AlertMetric.REQUESTS_PER_S, 1_000 / 300),
        (AlertMetric.MEMORY_SHARE, 0.4),
        (AlertMetric.HEALTHY_SHARE, 1.0),
        (AlertMetric.FEEDBACK_VALUE, 0.25),
    ],
)
def test_a_policys_own_rules_are_above_or_below_what_is_measured(metric: AlertMetric, value: float) -> None:
    feedback = FeedbackCounts.model_validate(
        {
            "version": 1,
            "generation": 1,
            "role": "stable",
            "reason": "assigned",
            "hour": NOW,
            "count": 40,
            "valued": 40,
            "value_millionths": 10_000_000,
        }
    )
    told = window(errors=20, ms=40, refused={"overloaded": 100}, memory_share=0.4, feedback=[feedback])
    for limit, above, below in ((value * 0.97, True, False), (value * 1.03, False, True)):
        assert bool(broken_own(told, rule(metric, above=limit))) is above, limit
        assert bool(broken_own(told, rule(metric, below=limit))) is below, limit


def broken_own(told: Window, own: AlertRulePolicy) -> bool | None:
    return judged(told, own=(own,))["endpoint:m:own"].is_broken


def test_what_doubled_is_found_anew_and_what_wavers_is_not() -> None:
    found = [judged(window(errors=errors))["error_rate"].evidence for errors in (60, 90, 110, 190, 210)]
    assert [one["doubled"] for one in found] == [0, 0, 1, 1, 2]
    assert found[0] == found[1]


@pytest.mark.parametrize("given", [{}, {"above": 1.0, "below": 0.5}, {"above": float("nan")}])
def test_a_rule_has_one_limit(given: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        rule(AlertMetric.P95_MS, **given)


def test_two_rules_of_a_policy_have_two_names() -> None:
    one = rule(AlertMetric.P95_MS, above=1.0)
    with pytest.raises(ValidationError, match="two alert rules have one name"):
        Policy(alerts=(one, one))
