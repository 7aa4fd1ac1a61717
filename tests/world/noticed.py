"""A world with sinks of alerts: what fires in it, what they were told, and how time passes."""

from shared.alerts.documents import Alert, AlertRule
from shared.alerts.mailbox import Mailbox
from shared.alerts.notices import Notice
from shared.core.alert_settings import AlertSettings, AlertSink, SinkKind
from shared.registration.documents import NO_MODEL
from shared.store.ports import Container
from tests.world.fakes import Fuse
from tests.world.world import World

RULE = AlertRule.ROLLOUT_HELD
WAIT_S = 30


def sink(name: str = "ops", **fields: object) -> AlertSink:
    return AlertSink.model_validate({"name": name, "kind": SinkKind.SLACK, "url": "https://hooks.example/x"} | fields)


def world_with(*sinks: AlertSink) -> World:
    return World(alert_settings=AlertSettings(sinks=sinks or (sink(),), public_url="https://s.example/api"))


def fire(world: World, subject: str = "a", *, model: str = "digits", found: int = 1) -> Alert:
    return world.alerts.fire(RULE, subject, f"{subject} is held", model=model, evidence={"found": found})


def resolve(world: World, subject: str = "a", *, model: str = "digits") -> Alert | None:
    return world.alerts.resolve(RULE, subject, f"{subject} goes on", model=model)


def pass_s(world: World, seconds: int, *, every_s: int = 60) -> None:
    """Let time pass, the queue delivering what is due, and the timer calling each minute, or as often as it is said."""
    for begin in range(0, seconds, every_s):
        step_s = min(every_s, seconds - begin)
        for _ in range(2):
            world.clock.pass_s(step_s / 2)
            while world.step():
                pass
        if step_s == every_s:
            world.notifications.settle()


def told(world: World, name: str = "ops") -> list[Notice]:
    return world.alert_sinks[name].told


def said(world: World, name: str = "ops") -> list[tuple[str, str]]:
    return [(line.news.value, line.subject) for notice in told(world, name) for line in notice.lines]


def mailbox(world: World, name: str = "ops") -> Mailbox:
    return Mailbox.from_body(world.documents.held[Container.REPORTS, NO_MODEL, f"mailbox-{name}"].body)


def use(world: World, fuse: Fuse) -> None:
    world.documents.fuse = world.queues.fuse = world.alert_sinks["ops"].fuse = fuse
