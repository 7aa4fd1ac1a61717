"""Which pods have applied a plan, which cannot, which fell silent; and which are chosen to."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.core.slots import Slot
from shared.rollout.convergence import applied, chosen, convergence, fresh, still_sent, unavailable
from shared.rollout.progress import PodSeen
from tests.unit.rollout.evidence import CANDIDATE, NOW, STABLE, pod

PODS = st.lists(st.sampled_from([f"pod-{n}" for n in range(30)]), min_size=1, max_size=30, unique=True).map(tuple)
SHARES = st.integers(0, 10_000)


def of(pods: dict[str, PodSeen], quorum: float = 1.0) -> tuple[bool, str]:
    found = convergence(pods, generation=3, versions=(CANDIDATE,), quorum=quorum, now=NOW)
    return found.is_reached, found.sentence


def test_pods_that_fell_silent_are_told_from_those_that_fail_and_from_those_that_lag() -> None:
    pods = {
        "ready": pod(),
        "failing": pod(loaded=(STABLE,), failed={CANDIDATE: "digest differs"}),
        "lagging": pod(generation=2),
        "silent": pod(age_s=31),
        "gone": pod(age_s=3_601),
    }
    found = convergence(pods, generation=3, versions=(CANDIDATE,), quorum=0.3, now=NOW)
    assert found.reporting == ("failing", "lagging", "ready")
    assert found.ready == ("ready",)
    assert found.failing == {"failing": "digest differs"}
    assert found.silent == ("silent",)
    assert found.is_reached
    assert found.healthy_share == 1 / 3


def test_the_quorum_is_of_the_pods_that_report_and_nobody_is_no_quorum() -> None:
    assert of({}) == (False, "0 of 0 pods that report have version 2 ready")
    assert not of({"a": pod(age_s=31)})[0]
    half = {"a": pod(), "b": pod(), "c": pod(generation=2), "d": pod(generation=2)}
    assert of(half, 0.5)[0]
    assert not of(half, 0.51)[0]
    assert of(half | {"c": pod(age_s=60), "d": pod(age_s=60)})[0]


def test_a_pod_is_missed_while_it_fails_and_for_five_minutes_after_it_fell_silent() -> None:
    pods = {"a": pod(age_s=299), "b": pod(age_s=301), "c": pod(failed={CANDIDATE: "no"}), "d": pod()}
    found = convergence(pods, generation=3, versions=(CANDIDATE,), quorum=1, now=NOW)
    assert unavailable(found, pods, NOW) == ("a", "c")
    assert fresh(pods, NOW) == ("c", "d")


def test_what_a_pod_said_last_counts_as_applied_however_old_and_one_that_reports_is_waited_for() -> None:
    new, old, old_and_lagging = pod(), pod(age_s=7_200), pod(age_s=60, generation=2)
    assert applied({"a": new, "b": old}, 3, NOW) == ("a", "b")
    assert applied({"b": old}, 3, NOW) == ("b",)
    assert applied({"b": old, "lagging": pod(generation=2)}, 3, NOW) == ()
    # One that fell silent before it applied it is not waited for where another reports, and where none does it is.
    assert applied({"a": new, "gone": old_and_lagging}, 3, NOW) == ("a",)
    assert applied({"b": old, "gone": old_and_lagging}, 3, NOW) == ()
    assert applied({"b": old, "gone": pod(age_s=3_601, generation=2)}, 3, NOW) == ("b",)
    assert applied({}, 3, NOW) == ()


@given(PODS, SHARES, SHARES)
def test_a_larger_share_of_the_pods_holds_every_pod_of_a_smaller_one(pods: tuple[str, ...], a: int, b: int) -> None:
    low, high = sorted((a, b))
    fewer, more = chosen(pods, low, "s"), chosen(pods, high, "s")
    assert set(fewer) <= set(more)
    assert len(more) == -(-len(pods) * high // 10_000)
    assert chosen(pods, 0, "s") == ()
    assert chosen(pods, 10_000, "s") == tuple(sorted(pods))


@given(PODS, PODS, SHARES, SHARES)
def test_a_ramp_takes_no_pod_away_that_still_reports_whatever_pods_came_and_went(
    before: tuple[str, ...], after: tuple[str, ...], a: int, b: int
) -> None:
    low, high = sorted((a, b))
    had = chosen(before, low, "s")
    has = chosen(after, high, "s", keep=had)
    left = set(had) & set(after)
    assert left <= set(has) or set(has) <= left
    assert len(has) == -(-len(after) * high // 10_000)


def apart(pods: dict[str, PodSeen], quorum: float = 1.0) -> tuple[bool, str]:
    """How far the pods are where stable is in blue and the candidate in green."""
    found = convergence(
        pods,
        generation=3,
        versions=(CANDIDATE,),
        quorum=quorum,
        now=NOW,
        slots=(Slot.BLUE, Slot.GREEN),
        slot=Slot.GREEN,
    )
    return found.is_reached, found.sentence


def test_each_slot_has_its_own_quorum_and_only_the_candidate_s_pods_need_the_candidate() -> None:
    blue = {f"blue-{n}": pod(slot=Slot.BLUE, loaded=(STABLE,)) for n in range(9)}
    green = {"green-1": pod(slot=Slot.GREEN, loaded=(CANDIDATE,))}
    assert apart(blue | green) == (
        True,
        "10 of 10 pods that report have applied the plan, those of slot green with version 2 ready",
    )
    # Nine of ten are enough of neither slot.
    unready = {"green-1": pod(slot=Slot.GREEN, loaded=())}
    assert not apart(blue | unready, quorum=0.9)[0]
    lagging = {"blue-0": pod(slot=Slot.BLUE, loaded=(STABLE,), generation=2)}
    assert not apart(blue | green | lagging)[0]
    assert apart(blue | green | lagging, quorum=0.8)[0]


def test_a_slot_of_which_no_pod_reports_is_said_to_lack_pods() -> None:
    blue = {"blue-1": pod(slot=Slot.BLUE, loaded=(STABLE,))}
    is_reached, said = apart(blue | {"green-1": pod(age_s=31, slot=Slot.GREEN)})
    assert not is_reached
    assert said.startswith("no pod of slot green reports, in which version 2 is to be: deploy the endpoint's pods")
    assert apart({"green-1": pod(slot=Slot.GREEN)})[0], "a slot in which nothing need be ready has no pod to wait for"


def test_pods_are_still_sent_requests_for_a_minute_after_the_latest_however_many_windows_have_none() -> None:
    elsewhere = {"late": pod(generation=2, late_at=NOW - timedelta(seconds=1)), "quiet": pod(generation=2)}
    assert still_sent(elsewhere, {Slot.BLUE}, NOW) == ("late",)
    assert still_sent(elsewhere, {None}, NOW) == ()
    silent = {"idle": pod(age_s=31, late_at=NOW - timedelta(seconds=59))}
    assert still_sent(silent, {Slot.BLUE}, NOW) == ("idle",), "without requests it may write no window"
    before = {"earlier": pod(generation=2, late_at=NOW - timedelta(seconds=60))}
    assert still_sent(before, {Slot.BLUE}, NOW) == ()
