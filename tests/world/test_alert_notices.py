"""Alerts on their way to sinks: told at least once, in one message each where nothing dies, however things go wrong."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import pytest

from shared.alerts.documents import Alert, AlertRule, AlertState
from shared.alerts.held import Plan, Told, Waiting
from shared.alerts.mailbox import LEASE, MOST, Mailbox
from shared.alerts.notices import LISTED, News
from shared.alerts.planning import next_notice
from shared.alerts.silences import Matcher
from shared.core.severity import Severity
from shared.registration.documents import NO_MODEL
from shared.store.documents import MAX_DOCUMENT_BYTES
from shared.store.ports import Container
from tests.world.fakes import Fuse, Killed
from tests.world.noticed import RULE, WAIT_S, fire, mailbox, pass_s, resolve, said, sink, told, use, world_with
from tests.world.twins import twin
from tests.world.world import World


def test_what_is_fired_twice_is_told_once_with_its_evidence_and_its_end_once() -> None:
    world = world_with()
    alert = fire(world)
    fire(world)
    fire(world, found=2)
    pass_s(world, WAIT_S)
    (notice,) = told(world)
    (line,) = notice.lines
    assert (line.news, line.rule, line.subject, line.count) == (News.FIRING, "rollout_held", "a", 2)
    assert line.link == f"https://s.example/api/alerts/{alert.id}"
    assert notice.subject == "[firing] rollout_held of a (warning)"
    pass_s(world, 600)
    assert len(told(world)) == 1
    resolve(world)
    resolve(world)
    pass_s(world, 600)
    assert said(world) == [("firing", "a"), ("resolved", "a")]
    assert world.audit.verify().verified


def test_alerts_of_one_model_within_the_wait_are_told_in_one_message_and_each_model_in_its_own() -> None:
    world = world_with()
    fire(world, "a")
    pass_s(world, WAIT_S - 1)
    fire(world, "b")
    fire(world, "c", model="iris")
    pass_s(world, 120)
    assert [sorted(line.subject for line in notice.lines) for notice in told(world)] == [["a", "b"], ["c"]]
    assert told(world)[0].subject == "[2 firing] 2 alerts of digits"


def test_what_still_fires_is_repeated_until_somebody_acknowledges_it() -> None:
    world = world_with(sink(repeat_s=3_600))
    alert = fire(world)
    pass_s(world, 2 * 3_600 + 120)
    assert said(world) == [("firing", "a"), ("repeated", "a"), ("repeated", "a")]
    world.alerts.acknowledge(alert.id, by="ann", reason="looking")
    world.alerts.acknowledge(alert.id, by="ann")
    pass_s(world, 3 * 3_600)
    assert said(world)[3:] == [("acknowledged", "a")]
    assert told(world)[-1].lines[0].acknowledged_by == "ann"
    # It changes: the acknowledgement is over.
    assert fire(world, found=2).acknowledged is None
    pass_s(world, 60)
    assert said(world)[4:] == [("firing", "a")]
    resolve(world)
    pass_s(world, 60)
    assert said(world)[5:] == [("resolved", "a")]


def test_what_somebody_acknowledged_before_it_was_told_is_not_told_nor_its_end() -> None:
    world = world_with()
    world.alerts.acknowledge(fire(world).id, by="ann")
    pass_s(world, 120)
    resolve(world)
    pass_s(world, 120)
    assert told(world) == []
    fire(world)
    pass_s(world, 60)
    assert said(world) == [("firing", "a")]


def test_a_silenced_alert_is_recorded_and_not_sent_and_told_when_the_silence_ends() -> None:
    world = world_with()
    until = world.clock.now() + timedelta(hours=1)
    silence = world.alerts.silence(
        Matcher(model="dig*", rule="rollout_held"), by="ann", reason="at work", until=until, command_id="1"
    )
    quiet, gone, other = fire(world, "a"), fire(world, "b"), fire(world, "c", model="iris")
    pass_s(world, 120)
    assert said(world) == [("firing", "c")]
    assert world.alerts.alert(quiet.id).silenced_by == silence.id
    assert world.alerts.alert(other.id).silenced_by is None
    assert "alert_silenced" in [event.kind for event in world.audit.events(quiet.stream)]
    resolve(world, "b")
    pass_s(world, 3_600)
    assert said(world) == [("firing", "c"), ("firing", "a")]
    assert world.alerts.alert(quiet.id).silenced_by is None
    assert world.alerts.alert(gone.id).state is AlertState.RESOLVED
    assert world.alerts.silences() == []
    assert [event.kind for event in world.audit.events(silence.stream)] == ["silence_made", "silence_expired"]
    assert world.audit.verify().verified


def test_a_silence_that_is_made_while_a_notice_is_posted_holds_for_the_next_and_not_for_that_one() -> None:
    world = world_with()
    fire(world, "a", model="a")
    fire(world, "b", model="b")
    world.clock.pass_s(60)
    until = world.clock.now() + timedelta(hours=1)

    def silence() -> None:
        world.alerts.silence(Matcher(subject="*"), by="ann", reason="noise", until=until, command_id="1")

    world.alert_sinks["ops"].meanwhile = [silence]
    world.notifications.settle()
    assert said(world) == [("firing", "a")]
    pass_s(world, 3_600)
    assert said(world) == [("firing", "a"), ("firing", "b")]


def test_the_end_of_what_was_told_is_told_under_a_silence_too() -> None:
    world = world_with()
    fire(world)
    pass_s(world, 60)
    until = world.clock.now() + timedelta(hours=1)
    world.alerts.silence(Matcher(subject="*"), by="ann", reason="noise", until=until, command_id="1")
    resolve(world)
    pass_s(world, 60)
    assert said(world) == [("firing", "a"), ("resolved", "a")]


def test_what_fires_and_is_over_while_a_sink_is_down_is_told_when_it_is_back() -> None:
    world = world_with()
    world.alert_sinks["ops"].is_down = True
    fire(world, "first")
    pass_s(world, 60)
    fire(world, "brief")
    resolve(world, "brief")
    fire(world, "lasting")
    pass_s(world, 6 * 3_600)
    assert told(world) == []
    world.alert_sinks["ops"].is_down = False
    pass_s(world, 31 * 60)
    assert said(world)[0] == ("firing", "first")
    assert sorted(said(world)[1:3]) == [("firing", "lasting"), ("resolved", "brief")]


def test_a_sink_that_is_down_is_alerted_to_the_others_and_keeps_none_of_them_waiting() -> None:
    world = world_with(sink("dead"), sink("ops"))
    world.alert_sinks["dead"].is_down = True
    fire(world)
    pass_s(world, 15 * 60)
    assert said(world) == [("firing", "a"), ("firing", "sink:dead")]
    (alert,) = world.alerts.firing(AlertRule.SINK_DOWN)
    assert "the sink dead of alerts took nothing in 3 tries: the sink is unavailable: it is down" in alert.sentence
    world.alert_sinks["dead"].is_down = False
    pass_s(world, 15 * 60)
    assert said(world)[2:] == [("resolved", "sink:dead")]
    assert ("firing", "a") in said(world, "dead")


@pytest.mark.parametrize("alerts", [100, pytest.param(1_000, marks=pytest.mark.long)])
def test_a_storm_of_alerts_of_one_model_is_one_message_that_says_how_many_more(alerts: int) -> None:
    world = world_with()
    for number in range(alerts):
        fire(world, f"s{number:04d}")
    pass_s(world, WAIT_S)
    (notice,) = told(world)
    assert (len(notice.lines), len(notice.more)) == (LISTED, alerts - LISTED)
    assert notice.closing == f"and {alerts - LISTED} more: `slipway alerts list`"
    assert notice.subject == f"[{alerts} firing] {alerts} alerts of digits"
    world.clock.pass_s(120)
    world.notifications.settle()
    assert len(told(world)) == 1
    for number in range(alerts):
        resolve(world, f"s{number:04d}")
    pass_s(world, WAIT_S)
    assert [len(one.items) for one in told(world)] == [alerts, alerts]
    assert not mailbox(world).waiting


def test_a_storm_over_many_models_is_bounded_messages_of_which_the_last_tells_of_all_that_are_left() -> None:
    world = world_with(sink(most=4, per_s=600))
    for number in range(40):
        fire(world, f"s{number}", model=f"m{number:02d}")
    grave = world.alerts.fire(AlertRule.ERROR_RATE, "endpoint:z", "requests fail", model="z")
    pass_s(world, 300)
    assert [len(notice.items) for notice in told(world)] == [1, 1, 1, 38]
    assert told(world)[0].lines[0].alert_id == grave.id
    fire(world, "late", model="m50")
    pass_s(world, 240)
    assert len(told(world)) == 4
    pass_s(world, 180)
    assert said(world)[-1] == ("firing", "late")


def test_each_alert_is_read_once_however_many_notices_are_sent_of_a_storm() -> None:
    def calls(alerts: int) -> int:
        world = world_with()
        for number in range(alerts):
            fire(world, f"s{number}", model=f"m{number:02d}")
        world.clock.pass_s(60)
        world.documents.fuse = Fuse()
        world.notifications.settle()
        assert len(told(world)) == 10
        return world.documents.fuse.calls

    # Of each more there are a read for its notice, and a read and a write once it is taken in.
    assert calls(40) - calls(20) == 20 * 3


def test_sinks_are_told_of_their_models_and_of_what_is_grave_enough() -> None:
    world = world_with(sink("pager", severity=Severity.CRITICAL), sink("iris", models=("iris", "-")))
    fire(world, "a")
    fire(world, "b", model="iris")
    world.alerts.fire(AlertRule.SLOW, "endpoint:digits", "it is slow", model="digits")
    world.alerts.fire(AlertRule.DEAD_LETTERS, "queue:x", "they wait", model=NO_MODEL)
    pass_s(world, 120)
    assert said(world, "pager") == [("firing", "endpoint:digits")]
    assert sorted(said(world, "iris")) == [("firing", "b"), ("firing", "queue:x")]


def test_an_alert_that_becomes_graver_is_told_to_the_sinks_of_what_is_as_grave_as_it_is_now() -> None:
    world = world_with(sink(), sink("pager", severity=Severity.CRITICAL))

    def look(severity: Severity) -> Alert:
        return world.alerts.fire(RULE, "a", "a is held", model="digits", evidence={"found": 1}, severity=severity)

    look(Severity.WARNING)
    pass_s(world, 60)
    assert said(world, "pager") == []
    assert look(Severity.CRITICAL).severity is Severity.CRITICAL
    pass_s(world, 60)
    assert said(world, "pager") == said(world) == [("firing", "a")]
    assert told(world, "pager")[0].lines[0].severity is Severity.CRITICAL
    # Less grave with the same evidence: nothing new was found.
    assert look(Severity.WARNING).severity is Severity.CRITICAL
    resolve(world)
    pass_s(world, 60)
    assert said(world, "pager") == said(world) == [("firing", "a"), ("resolved", "a")]


def test_an_alert_that_fired_before_there_was_a_sink_is_told_at_the_next_look() -> None:
    before = World()
    fire(before)
    world = world_with()
    world.documents.held = dict(before.documents.held)
    fire(world)
    pass_s(world, 60)
    assert said(world) == [("firing", "a")]


@pytest.mark.parametrize("is_by_message", [False, True])
def test_a_sink_that_is_added_is_told_of_what_fires_and_the_others_not_again(*, is_by_message: bool) -> None:
    before = world_with()
    fire(before)
    over = fire(before, "over")
    pass_s(before, 60)
    resolve(before, "over")
    pass_s(before, 60)
    world = world_with(sink(), sink("new"), sink("pager", severity=Severity.CRITICAL))
    world.clock.time = before.clock.now()
    world.documents.held = dict(before.documents.held)
    if is_by_message:
        fire(world, "b")
        pass_s(world, 30)
    pass_s(world, 120)
    assert sorted(said(world, "new")) == [("firing", "a"), ("firing", "b")][: 1 + is_by_message]
    assert over.id not in mailbox(world, "new").told
    assert said(world) == [("firing", "b")][: int(is_by_message)]
    assert said(world, "pager") == []


def test_what_is_pending_is_told_when_it_held_long_enough_and_not_where_it_did_not() -> None:
    world = world_with()

    def look(subject: str) -> Alert:
        return world.alerts.fire(RULE, subject, "slow", model="digits", for_s=300, severity=Severity.CRITICAL)

    assert look("a").state is AlertState.PENDING
    look("b")
    pass_s(world, 240)
    assert look("a").state is AlertState.PENDING
    world.alerts.resolve(RULE, "b", "fast again", model="digits")
    assert list(world.alerts.firing(RULE)) == []
    assert [alert.subject for alert in world.alerts.holding(RULE)] == ["a"]
    pass_s(world, 60)
    assert look("a").state is AlertState.FIRING
    pass_s(world, 60)
    assert said(world) == [("firing", "a")]
    assert look("b").state is AlertState.PENDING


def test_two_calls_at_once_send_a_notice_once() -> None:
    world = world_with()
    fire(world)
    world.clock.pass_s(60)
    # Another call comes in between, at each of the first writes.
    world.documents.other_writers = [world.notifications.settle] * 6
    world.notifications.settle()
    world.notifications.settle()
    assert said(world) == [("firing", "a")]


@pytest.mark.parametrize("is_over_first", [True, False])
def test_news_that_another_call_takes_in_between_the_read_of_an_alert_and_the_write_is_told(
    *, is_over_first: bool
) -> None:
    at, died = 0, True
    while died:
        at += 1
        world = world_with()
        fire(world)
        if is_over_first:
            pass_s(world, 60)
            resolve(world)
        world.clock.pass_s(60)
        deaths: list[int] = []
        # The first write takes news into the mailbox, the second has the alert say so, the third makes the notice.
        other = partial(another_call, world, at, deaths, fire if is_over_first else resolve)
        world.documents.other_writers = [lambda: None, lambda: None, other]
        world.notifications.settle()
        died = bool(deaths)
        pass_s(world, 300)
        assert said(world)[-1] == ("firing" if is_over_first else "resolved", "a"), at
        assert not mailbox(world).waiting
    assert at > 5


def another_call(world: World, at: int, deaths: list[int], news: Callable[[World], object]) -> None:
    """What there is news of is taken in by another call, which dies at one of its port calls."""
    news(world)
    world.clock.pass_s(60)
    use(world, Fuse(at=at))
    try:
        world.notifications.settle()
    except Killed:
        deaths.append(at)
    use(world, Fuse())


def test_a_notice_that_is_being_posted_is_left_to_who_posts_it_and_taken_over_only_when_that_took_too_long() -> None:
    world = world_with()
    fire(world)
    world.clock.pass_s(60)
    posting = world.alert_sinks["ops"]

    def look_late() -> None:
        world.clock.pass_s(LEASE.total_seconds() - 1)
        world.notifications.settle()
        assert posting.told == []
        world.clock.pass_s(1)
        world.notifications.settle()

    posting.meanwhile = [look_late]
    world.notifications.settle()
    # Both had it, under one id, and one of them noted it.
    assert len({notice.notice_id for notice in posting.told}) == 1
    assert len(posting.told) == 2
    assert [event.kind for event in world.audit.events(mailbox(world).stream)] == ["notice_sent"]


def test_a_mailbox_that_cannot_be_read_keeps_no_other_sink_from_being_told() -> None:
    world = world_with(sink("damaged"), sink("ops"))
    fire(world, "a")
    pass_s(world, 60)
    key = (Container.REPORTS, NO_MODEL, "mailbox-damaged")
    good = world.documents.get(*key)
    assert good is not None
    bad = world.documents.replace(Container.REPORTS, good.body | {"waiting": "lost"}, etag=good.etag)
    fire(world, "b")
    pass_s(world, 60)
    assert said(world, "ops") == [("firing", "a"), ("firing", "b")]
    # Mended, it is told what came meanwhile.
    world.documents.replace(Container.REPORTS, good.body, etag=bad.etag)
    pass_s(world, 60)
    assert said(world, "damaged") == [("firing", "a"), ("firing", "b")]
    assert said(world, "ops") == [("firing", "a"), ("firing", "b")]


def test_a_mailbox_has_room_for_a_bounded_number_and_what_is_more_is_told_when_there_is_room() -> None:
    box, settings = Mailbox(id="mailbox-ops", sink="ops"), sink()
    world = world_with()
    now = world.clock.now()
    alerts = [fire(world, f"s{number}") for number in range(3)]
    many = [alerts[0].model_copy(update={"id": f"alert-{number}"}) for number in range(MOST - 1)]
    assert box.take_in([*many, *alerts], settings, now)
    assert [box.has(alert, settings) for alert in alerts] == [True, False, False]
    # What is known of is taken in all the same: its end has to be told.
    over = many[0].model_copy(update={"news": 2})
    assert box.take_in([over, *alerts], settings, now)
    assert box.has(over, settings)
    assert not box.has(alerts[1], settings)
    box.waiting = {}
    assert box.take_in(alerts, settings, now)
    assert all(box.has(alert, settings) for alert in alerts)


def test_a_mailbox_that_is_full_of_what_is_over_has_room_again_after_an_hour() -> None:
    world = world_with()
    now, since = world.clock.now(), world.clock.now()
    over = {
        f"alert-{number}": Told(news=News.RESOLVED, number=2, since=since, at=now, model="digits")
        for number in range(MOST)
    }
    box, settings = Mailbox(id="mailbox-ops", sink="ops", told=over), sink()
    alert = fire(world)
    assert not box.take_in([alert], settings, now + timedelta(minutes=59))
    assert not box.has(alert, settings)
    assert box.take_in([alert], settings, now + timedelta(minutes=61))
    assert box.has(alert, settings)


def test_what_was_acknowledged_untold_is_forgotten_after_it_is_over() -> None:
    world = world_with()
    alert = fire(world)
    world.alerts.acknowledge(alert.id, by="ann")
    pass_s(world, 120)
    assert mailbox(world).told[alert.id].news is News.ACKNOWLEDGED
    resolve(world)
    pass_s(world, 120)
    assert mailbox(world).told[alert.id].news is News.RESOLVED
    pass_s(world, 60)
    world.clock.pass_s(24 * 3_600)
    fire(world, "b")
    pass_s(world, 120)
    assert alert.id not in mailbox(world).told
    assert said(world) == [("firing", "b")]


def test_the_fullest_mailbox_fits_a_document() -> None:
    world = world_with()
    alert = fire(world, "x" * 60, model="m" * 63)
    now = world.clock.now().replace(microsecond=123_456)
    alerts = [alert.model_copy(update={"id": alert.id[:-5] + f"{number:05d}", "news": 1_000}) for number in range(MOST)]
    settings = sink()
    # Each is told, under way to be told of its end, and waits again; and a day of messages as its settings allow.
    box = Mailbox(id="mailbox-ops", sink="ops", told={one.id: _told(one, now) for one in alerts})
    groups = [[(one, News.RESOLVED) for one in alerts]]
    notice = next_notice(box, Plan(groups=groups), settings, now, public_url="https://s.example/api")
    assert box.begin(Plan(), notice)
    waits = Waiting(model=alert.model, number=1_001, withheld_by=f"silence-{'0' * 32}", at=now)
    box.waiting = {one.id: waits for one in alerts}
    box.sent_at = tuple(now - timedelta(minutes=number) for number in range(24 * 60))
    assert notice is not None
    for number in range(1, 24):
        assert box.fail(notice, "x" * 1_000, now + timedelta(minutes=number * 30), refused=400) is (number <= 13)
    assert len(box.parts) == 1
    world.documents.create(box.container, box.to_body() | {"id": "mailbox-full"})
    assert len(json.dumps(box.to_body(), ensure_ascii=False).encode()) < MAX_DOCUMENT_BYTES


def _told(alert: Alert, at: datetime) -> Told:
    return Told(news=News.FIRING, number=alert.news, since=at, at=at, model=alert.model)


def story(world: World, act: int) -> None:
    """One act of a story whose every port call may be the last."""
    match act:
        case 0:
            fire(world, "a")
        case 1:
            fire(world, "b")
        case 2:
            resolve(world, "a")
        case _:
            world.notifications.settle()


@pytest.mark.parametrize("act", range(4))
def test_a_process_that_is_killed_anywhere_loses_no_news_and_sends_no_notice_under_two_ids(act: int) -> None:
    before = world_with()
    for earlier in range(act):
        story(before, earlier)
        pass_s(before, 10 if earlier == 0 else 45)
    if act == 3:
        fire(before, "c")
        before.queues.messages.clear()
        before.clock.pass_s(60)
    at, died = 0, True
    while died:
        at += 1
        world = twin(before)
        world.alert_sinks["ops"].told = list(told(before))
        use(world, Fuse(at=at))
        died = False
        try:
            story(world, act)
            while world.queues.messages and not died:
                world.clock.pass_s(WAIT_S)
                _, queue, body = world.queues.messages.pop(0)
                world.handle(queue, body)
        except Killed:
            died = True
        use(world, Fuse())
        # Whoever looked looks again, the sweep runs, and so does the timer.
        story(world, act)
        world.sweep.sweep()
        pass_s(world, 600)
        assert kinds_of(world) == expected(act), at
        assert world.audit.verify().verified
        assert not mailbox(world).waiting
    assert at > 5


def kinds_of(world: World) -> list[tuple[str, str]]:
    """What was told, each notice once: who gets one twice knows it by its id."""
    once = {notice.notice_id: notice for notice in told(world)}
    return sorted((line.news.value, line.subject) for notice in once.values() for line in notice.lines)


def expected(act: int) -> list[tuple[str, str]]:
    fired = [("firing", "a"), ("firing", "b"), ("firing", "c")]
    match act:
        case 0:
            return fired[:1]
        case 1:
            return fired[:2]
        case 2:
            return [*fired[:2], ("resolved", "a")]
        case _:
            return [*fired, ("resolved", "a")]
