"""Notices that a sink refuses for good are given up in the end, and told of; what nobody wants is taken back."""

from datetime import timedelta

import pytest

from shared.alerts.documents import Alert, AlertRule
from shared.alerts.mailbox import REFUSALS, REFUSED_FOR
from shared.alerts.notices import Notice
from shared.alerts.silences import Matcher
from shared.alerts.sink_alerts import DROPPED_TOLD_FOR
from tests.world.fakes import Fuse, Killed
from tests.world.noticed import fire, mailbox, pass_s, resolve, said, sink, told, use, world_with
from tests.world.twins import twin
from tests.world.world import World

HOURS = int(REFUSED_FOR.total_seconds()) // 3_600
HOUR_S = 3_600


def says(subject: str) -> "Refusing":
    return Refusing(subject)


class Refusing:
    """Refuses notices that tell of a subject."""

    def __init__(self, subject: str) -> None:
        self.subject = subject

    def __call__(self, notice: Notice) -> bool:
        """Whether this one is refused."""
        return any(line.subject == self.subject for line in notice.lines)


def silence(world: World, subject: str, *, for_s: int = HOUR_S) -> None:
    until = world.clock.now() + timedelta(seconds=for_s)
    world.alerts.silence(Matcher(subject=subject), by="ann", reason="noise", until=until, command_id=subject)


def fire_many(world: World, count: int) -> list[Alert]:
    """Fire alerts that come one after the other, and are told in that order."""
    alerts = []
    for number in range(count):
        alerts.append(fire(world, f"s{number:02d}"))
        world.clock.pass_s(1)
    return alerts


def events(world: World, name: str = "ops") -> list[str]:
    return [event.kind for event in world.audit.events(mailbox(world, name).stream)]


def test_a_notice_that_its_sink_refuses_for_hours_is_dropped_with_a_record_and_an_alert_and_the_next_is_told() -> None:
    world = world_with(sink("ops"), sink("other"))
    world.alert_sinks["ops"].refuses = says("poison")
    poison = fire(world, "poison")
    pass_s(world, 60)
    fire(world, "b")
    pass_s(world, HOURS * HOUR_S - 600, every_s=600)
    assert said(world) == []
    assert mailbox(world).notices_dropped == 0
    assert [alert.subject for alert in world.alerts.firing(AlertRule.SINK_DOWN)] == ["sink:ops"]
    pass_s(world, HOUR_S)
    assert ("firing", "b") in said(world)
    assert ("firing", "poison") not in said(world)
    (dropped,) = [event for event in world.audit.events(mailbox(world).stream) if event.kind == "notice_dropped"]
    assert dropped.data["alerts"] == [poison.id]
    assert (dropped.data["sink"], dropped.data["status"]) == ("ops", 400)
    assert dropped.data["refusals"] >= REFUSALS
    (alert,) = world.alerts.firing(AlertRule.NOTICE_DROPPED)
    assert (alert.subject, alert.severity) == ("sink:ops", "critical")
    assert "`slipway audit show mailbox:-:ops` names the alerts" in alert.sentence
    assert ("firing", "sink:ops") in said(world, "other")
    assert list(world.alerts.firing(AlertRule.SINK_DOWN)) == []
    pass_s(world, int(DROPPED_TOLD_FOR.total_seconds()), every_s=HOUR_S)
    world.alert_sinks["ops"].refuses = says("")
    assert world.audit.verify().verified


@pytest.mark.parametrize("place", [0, 7, 19])
def test_of_a_notice_of_many_only_what_its_sink_refuses_is_dropped(place: int) -> None:
    world = world_with()
    posting = world.alert_sinks["ops"]
    posting.refuses = says(f"s{place:02d}")
    alerts = fire_many(world, 25)
    pass_s(world, HOURS * HOUR_S - 600, every_s=600)
    assert said(world) == []
    pass_s(world, 2 * HOUR_S)
    counted = {item.alert_id for notice in told(world) for item in notice.more}
    known = {subject for _, subject in said(world)} | {alert.subject for alert in alerts if alert.id in counted}
    assert {alert.subject for alert in alerts} - known == {f"s{place:02d}"}
    lost = [
        event.data["alerts"] for event in world.audit.events(mailbox(world).stream) if event.kind == "notice_dropped"
    ]
    assert lost == [[alerts[place].id]]
    assert (mailbox(world).notice, mailbox(world).parts) == (None, ())
    assert world.audit.verify().verified


def test_a_sink_that_refuses_whatever_it_is_sent_holds_nothing_up_for_long() -> None:
    world = world_with()
    world.alert_sinks["ops"].refuses = lambda _: True
    alerts = fire_many(world, 25)
    pass_s(world, (HOURS + 2) * HOUR_S, every_s=120)
    lost = [
        event.data["alerts"] for event in world.audit.events(mailbox(world).stream) if event.kind == "notice_dropped"
    ]
    assert {one for ids in lost for one in ids} >= {alert.id for alert in alerts}
    assert not {alert.id for alert in alerts} & mailbox(world).waiting.keys()


def test_what_was_dropped_and_still_fires_is_told_again_once_the_sink_is_mended_and_the_alert_on_it_ends() -> None:
    world = world_with(sink(repeat_s=HOUR_S))
    world.alert_sinks["ops"].refuses = says("poison")
    fire(world, "poison")
    pass_s(world, (HOURS + 1) * HOUR_S, every_s=300)
    assert mailbox(world).notices_dropped == 1
    world.alert_sinks["ops"].refuses = says("")
    pass_s(world, 2 * HOUR_S, every_s=600)
    assert ("repeated", "poison") in said(world)
    resolve(world, "poison")
    pass_s(world, 60)
    assert ("resolved", "poison") in said(world)
    pass_s(world, int(DROPPED_TOLD_FOR.total_seconds()), every_s=HOUR_S)
    assert list(world.alerts.firing(AlertRule.NOTICE_DROPPED)) == []


def test_a_sink_that_is_down_for_days_and_refuses_a_few_times_loses_nothing() -> None:
    world = world_with()
    posting = world.alert_sinks["ops"]
    posting.is_down = True
    fire(world)
    pass_s(world, 3 * 24 * HOUR_S, every_s=HOUR_S)
    # On its way up, what stands before it refuses.
    posting.is_down, posting.refuses = False, says("a")
    pass_s(world, (REFUSALS - 2) * 1_800, every_s=600)
    posting.refuses = says("")
    pass_s(world, HOUR_S)
    assert said(world)[0] == ("firing", "a")
    assert "notice_dropped" not in events(world)


def test_a_sink_that_asks_to_be_left_alone_is_left_alone_for_as_long_up_to_an_hour() -> None:
    world = world_with()
    fire(world)
    world.clock.pass_s(60)
    world.notifications.settle()
    box = mailbox(world)
    for asked_s, waited_s in ((0.0, 60), (600.0, 600), (10**9, HOUR_S)):
        fire(world, f"s{asked_s}")
        world.clock.pass_s(60)
        posting = world.alert_sinks["ops"]
        posting.is_down, posting.retry_after_s = True, asked_s
        world.notifications.settle()
        box = mailbox(world)
        assert box.notice is not None
        assert (box.notice.try_at - world.clock.now()).total_seconds() == waited_s
        posting.is_down = False
        world.clock.pass_s(waited_s)
        world.notifications.settle()


@pytest.mark.parametrize("is_silenced", [True, False])
def test_an_alert_that_is_silenced_or_acknowledged_while_its_sink_is_down_is_not_told(*, is_silenced: bool) -> None:
    world = world_with()
    world.alert_sinks["ops"].is_down = True
    quiet = fire(world, "quiet")
    fire(world, "b")
    pass_s(world, 600)
    if is_silenced:
        silence(world, "quiet")
    else:
        world.alerts.acknowledge(quiet.id, by="ann")
    pass_s(world, 60)
    world.alert_sinks["ops"].is_down = False
    pass_s(world, 1_800)
    assert said(world)[0] == ("firing", "b")
    assert ("firing", "quiet") not in said(world)
    assert "notice_withdrawn" in events(world)
    if is_silenced:
        pass_s(world, HOUR_S)
        assert said(world)[-1] == ("firing", "quiet")
    assert world.audit.verify().verified


def test_a_sink_stays_down_where_the_notice_it_does_not_take_is_withdrawn() -> None:
    world = world_with(sink("ops"), sink("other", models=("-",)))
    world.alert_sinks["ops"].is_down = True
    fire(world, "quiet")
    pass_s(world, 600)
    assert said(world, "other") == [("firing", "sink:ops")]
    silence(world, "*", for_s=2 * HOUR_S)
    pass_s(world, HOUR_S, every_s=600)
    assert mailbox(world).notice is None
    assert said(world, "other") == [("firing", "sink:ops")]


def test_a_sink_that_nothing_is_to_be_told_to_for_a_day_does_not_count_as_down_for_ever() -> None:
    world = world_with(sink("ops", models=("digits",)), sink("other", models=("-",)))
    world.alert_sinks["ops"].is_down = True
    fire(world, "quiet")
    pass_s(world, 600)
    silence(world, "quiet", for_s=20 * 24 * HOUR_S)
    pass_s(world, 23 * HOUR_S, every_s=1_800)
    assert [alert.subject for alert in world.alerts.firing(AlertRule.SINK_DOWN)] == ["sink:ops"]
    pass_s(world, 2 * HOUR_S, every_s=1_800)
    assert said(world, "other")[-1] == ("resolved", "sink:ops")
    # What it is told next says anew how it is.
    fire(world, "b")
    pass_s(world, 600)
    assert said(world, "other")[-1] == ("firing", "sink:ops")


def test_what_is_repeated_and_silenced_while_its_sink_is_down_is_repeated_when_the_silence_ends() -> None:
    world = world_with(sink(repeat_s=HOUR_S))
    fire(world)
    pass_s(world, 60)
    world.alert_sinks["ops"].is_down = True
    pass_s(world, HOUR_S + 120)
    silence(world, "a")
    pass_s(world, 1_800)
    world.alert_sinks["ops"].is_down = False
    pass_s(world, 1_200)
    assert said(world) == [("firing", "a")]
    pass_s(world, HOUR_S)
    assert said(world) == [("firing", "a"), ("repeated", "a")]


def test_a_notice_that_may_be_at_its_sink_is_not_taken_back_and_goes_out_under_its_id() -> None:
    world = world_with()
    fire(world)
    world.clock.pass_s(60)
    world.alert_sinks["ops"].fuse = Fuse(at=1)
    with pytest.raises(Killed):
        world.notifications.settle()
    world.alert_sinks["ops"].fuse = Fuse()
    under_way = mailbox(world).notice
    assert under_way is not None
    silence(world, "a")
    pass_s(world, 600)
    assert [notice.notice_id for notice in told(world)] == [under_way.notice_id]


@pytest.mark.parametrize("is_refused", [True, False])
def test_a_process_that_is_killed_anywhere_drops_a_notice_once_and_takes_one_back_once(*, is_refused: bool) -> None:
    before = world_with()
    posting = before.alert_sinks["ops"]
    posting.refuses = says("a")
    fire(before, "a")
    fire(before, "c")
    pass_s(before, HOURS * HOUR_S if is_refused else 180, every_s=60 if not is_refused else 600)
    if not is_refused:
        silence(before, "a", for_s=24 * HOUR_S)
    before.clock.pass_s(1_800)
    at, died = 0, True
    while died:
        at += 1
        world = twin(before)
        world.alert_sinks["ops"].refuses = says("a")
        use(world, Fuse(at=at))
        died = False
        try:
            world.notifications.settle()
        except Killed:
            died = True
        use(world, Fuse())
        pass_s(world, HOUR_S, every_s=600)
        assert world.audit.verify().verified
        if is_refused:
            assert events(world).count("notice_dropped") == mailbox(world).notices_dropped == 1, at
            assert [alert.subject for alert in world.alerts.firing(AlertRule.NOTICE_DROPPED)] == ["sink:ops"]
        else:
            assert events(world).count("notice_withdrawn") == 1, at
            assert len({notice.notice_id for notice in told(world)}) == 1, at
            assert set(said(world)) == {("firing", "c")}, at
    assert at > 5


def test_a_notice_is_withdrawn_only_where_each_try_failed_and_what_it_repeats_is_due_again_by_itself() -> None:
    world = world_with(sink(repeat_s=HOUR_S))
    alert = fire(world)
    pass_s(world, 60)
    world.alert_sinks["ops"].is_down = True
    pass_s(world, HOUR_S + 60)
    box, later = mailbox(world), world.clock.now() + timedelta(hours=1)
    notice = box.notice
    assert notice is not None
    assert not box.withdraw(notice, {alert.id}, notice.try_at - timedelta(seconds=1)), "somebody may be at it"
    assert box.claim(later)
    assert not box.withdraw(notice, {alert.id}, later + timedelta(hours=1)), "who claimed it may have sent it and died"
    box = mailbox(world)
    assert box.withdraw(notice, {alert.id}, later)
    assert (box.notice, box.waiting) == (None, {})
    assert alert.id in box.needs(later, sink(repeat_s=HOUR_S))
    assert not box.withdraw(notice, {alert.id}, later), "it is under way no more"
