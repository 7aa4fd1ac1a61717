"""Events whose sink is down for hours: told again by themselves, once each time, and left to a person in the end."""

import itertools
from datetime import timedelta

from functions._messages import handle_body
from shared.alerts.documents import AlertRule
from shared.core.errors import UnavailableError
from shared.core.messages import PublishEvent, Queue
from shared.deadletters.documents import DeadLetter, LetterState
from shared.events.retries import MOST_TIMES, EventRetries, wait_of
from shared.registry.policy import Policy
from shared.registry.rollout_policy import RolloutPolicy
from tests.world.fakes import Fuse, Killed
from tests.world.twins import twin
from tests.world.world import World

TRIES = 5
"""As in host.json: maxDequeueCount."""
MESSAGES = itertools.count()


def world_with(events: int) -> World:
    """A world with so many events on their way to a sink that is down."""
    world = World(sinks=["ops"])
    world.sinks["ops"].is_down = True
    for number in range(1, events + 1):
        world.put_policy(Policy(rollout=RolloutPolicy(failure_limit=number)))
    return world


def deliver(world: World) -> int:
    """Deliver the messages of events, as the host and its queue would. How often the sink was tried."""
    due, world.queues.messages = world.queues.messages, []
    tries = 0
    for _, queue, body in due:
        assert queue == Queue.LIFECYCLE_EVENTS
        data, message = body.encode(), f"message {next(MESSAGES)}"
        for _ in range(TRIES):
            tries += 1
            try:
                handle_body(
                    world.dead_letters, Queue(queue), data, PublishEvent, world.events.publish, message_id=message
                )
                break
            except UnavailableError:
                continue
        else:
            world.dead_letters.keep(queue, data, message_id=message)
    return tries


def letters(world: World, state: LetterState = LetterState.KEPT) -> list[DeadLetter]:
    return world.dead_letters.letters(state).items


def pass_minutes(world: World, minutes: int) -> int:
    """Let minutes pass, the timer calling in each. How often the sink was tried."""
    tries = 0
    for _ in range(minutes):
        world.clock.pass_s(60)
        world.event_retries.tell_again()
        tries += deliver(world)
    return tries


def test_a_sink_that_is_down_for_hours_is_told_all_within_an_hour_of_its_coming_back() -> None:
    world = world_with(events=3)
    deliver(world)
    assert len(letters(world)) == 3
    # After 1, 2, 4, ... 32 and then every 60 minutes.
    assert pass_minutes(world, 5 * 60) == 3 * TRIES * (6 + 3)
    assert world.sinks["ops"].told == []
    world.sinks["ops"].is_down = False
    pass_minutes(world, 60)
    assert sorted(event["data"]["policy_version"] for event in world.sinks["ops"].told) == [1, 2, 3]
    assert letters(world) == []
    assert len(letters(world, LetterState.SETTLED)) == 3
    assert list(world.alerts.firing(AlertRule.DEAD_LETTERS)) == []
    assert world.audit.verify().verified


def test_in_the_end_an_event_is_left_to_a_person_who_has_it_told() -> None:
    world = world_with(events=1)
    deliver(world)
    pass_minutes(world, 30 * 60)
    (letter,) = letters(world)
    assert letter.count == MOST_TIMES + 1
    assert pass_minutes(world, 120) == 0
    assert [alert.subject for alert in world.alerts.firing(AlertRule.DEAD_LETTERS)] == ["queue:lifecycle-events"]
    world.sinks["ops"].is_down = False
    world.dead_letters.replay(letter.id, by="ann")
    deliver(world)
    assert len(world.sinks["ops"].told) == 1


def test_waits_double_from_a_minute_to_an_hour() -> None:
    minutes = [wait_of(count) // timedelta(minutes=1) for count in range(1, 10)]
    assert minutes == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_only_events_that_have_waited_long_enough_are_put_back() -> None:
    world = world_with(events=1)
    deliver(world)
    world.clock.pass_s(59)
    assert world.event_retries.tell_again() == 0
    world.dead_letters.keep(Queue.VALIDATIONS, b'{"model": "m", "version": 1}', message_id="other")
    world.dead_letters.keep(Queue.LIFECYCLE_EVENTS, b'{"who": "knows"}', message_id="no event")
    world.dead_letters.keep(Queue.LIFECYCLE_EVENTS, b"junk", message_id="no object")
    world.clock.pass_s(100)
    assert world.event_retries.tell_again() == 1
    assert sorted(letter.queue for letter in letters(world)) == ["lifecycle-events", "lifecycle-events", "validations"]


def test_a_call_puts_back_a_bounded_number_and_the_next_one_the_rest() -> None:
    world = world_with(events=7)
    deliver(world)
    world.clock.pass_s(60)
    retries = EventRetries(letters=world.letters, replays=world.dead_letters, clock=world.clock, at_once=3)
    assert [retries.tell_again() for _ in range(4)] == [3, 3, 1, 0]


def test_two_timers_at_once_put_an_event_back_once() -> None:
    world = world_with(events=1)
    deliver(world)
    world.clock.pass_s(60)
    world.documents.other_writers = [world.event_retries.tell_again]
    world.event_retries.tell_again()
    assert len(world.queues.messages) == 1


def test_a_timer_that_comes_late_puts_nothing_back_that_another_put_back_and_that_failed_again() -> None:
    world = world_with(events=1)
    deliver(world)
    world.clock.pass_s(60)
    world.documents.other_writers = [lambda: (world.event_retries.tell_again(), deliver(world))]
    world.event_retries.tell_again()
    (letter,) = letters(world)
    assert (letter.count, world.queues.messages) == (2, [])


def test_a_call_that_is_killed_anywhere_loses_no_event() -> None:
    before = world_with(events=2)
    deliver(before)
    before.clock.pass_s(60)
    at, died = 0, True
    while died:
        at += 1
        world = twin(before)
        world.documents.fuse = world.queues.fuse = Fuse(at=at)
        died = False
        try:
            world.event_retries.tell_again()
        except Killed:
            died = True
        world.documents.fuse = world.queues.fuse = Fuse()
        world.sweep.sweep()
        pass_minutes(world, 3)
        assert {event["data"]["policy_version"] for event in world.sinks["ops"].told} == {1, 2}, at
        assert letters(world) == []
        assert world.audit.verify().verified
    assert at > 10
