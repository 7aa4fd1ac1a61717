"""The outbox: to deliver twice is to deliver once; what cannot be delivered keeps nothing else waiting."""

import json
from datetime import timedelta

import pytest

from shared.alerts.documents import Alert, AlertRule
from shared.core.errors import IntegrityError, NotFoundError
from shared.core.messages import Queue, TellNews
from shared.registry.documents import Model
from shared.registry.policy import Policy, ValidationPolicy
from shared.rollout.endpoint import Endpoint
from shared.routing.plan import RoutePlan, plan_blob_name
from shared.store.aggregate import AuditEntry, PublishEntry, waiting_since
from shared.store.outbox import Outbox
from shared.store.ports import BlobContainer, Container
from shared.store.repository import Repository
from tests.world.fakes import Fuse, Killed
from tests.world.world import MODEL, World

STRICT = Policy(validation=ValidationPolicy(accuracy=0.99))


def outbox_of(world: World) -> Outbox:
    return Outbox(world.documents, world.blobs, world.queues, world.clock)


def plan_entry(generation: int) -> PublishEntry:
    return PublishEntry(
        number=generation,
        container=BlobContainer.ROUTES,
        name=plan_blob_name(MODEL),
        generation=generation,
        body={"generation": generation},
    )


def take_number(world: World, stream: str, seq: int) -> None:
    """Put a foreign document under an audit number that the stream will need."""
    world.documents.create(Container.AUDIT, {"id": f"{seq:010d}", "stream": stream, "hash": "foreign"})


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 3, 1)])
def test_a_published_blob_only_moves_to_a_later_generation(order: tuple[int, ...]) -> None:
    world = World()
    for generation in order:
        outbox_of(world).deliver(plan_entry(generation))
    blob = world.blobs.held[BlobContainer.ROUTES, plan_blob_name(MODEL)]
    assert json.loads(blob.data) == {"generation": 3}


def test_an_event_delivered_twice_is_one_event_and_another_under_its_number_is_an_error() -> None:
    world = World()
    model = Model(model=MODEL)
    model.record("policy_set", world.clock.now(), by="test")
    (entry,) = model.outbox
    assert isinstance(entry, AuditEntry)
    outbox_of(world).deliver(entry)
    outbox_of(world).deliver(entry)
    other = entry.model_copy(update={"event": entry.event.model_copy(update={"hash": "0" * 64})})
    with pytest.raises(IntegrityError, match="is not the one that was written"):
        outbox_of(world).deliver(other)


def test_an_entry_that_cannot_be_delivered_keeps_neither_the_plan_nor_the_messages_waiting() -> None:
    world = World()
    take_number(world, f"endpoint:{MODEL}", 1)
    world.event(world.drop("one"))
    world.run(seconds=50)
    endpoint = world.endpoint()
    assert world.stable == 1
    published = world.blobs.held[BlobContainer.ROUTES, plan_blob_name(MODEL)].data
    assert RoutePlan.model_validate_json(published) == endpoint.plan()
    assert [entry.entry for entry in endpoint.outbox] == ["audit"]
    assert not world.audit.verify().verified


def test_an_outbox_that_cannot_be_delivered_keeps_no_other_waiting_and_is_reported() -> None:
    world = World()
    models = Repository(Model, world.documents, outbox_of(world))
    for name in ("aaa", "bbb"):
        model = Model(model=name)
        model.record("policy_set", world.clock.now(), by="test")
        world.documents.create(Container.MODELS, model.to_body())
    take_number(world, "model:aaa", 1)
    with pytest.raises(IntegrityError, match="model:aaa"):
        models.deliver_outboxes()
    waiting = {key[1]: held.body["outbox_pending"] for key, held in world.documents.held.items() if key[2] == "model"}
    assert waiting == {"aaa": True, "bbb": False}


def test_the_sweep_does_its_other_parts_where_one_fails() -> None:
    world = World()
    world.put_policy(STRICT)
    take_number(world, f"model:{MODEL}", 2)
    world.put_policy(Policy())
    world.drop("one")
    world.clock.pass_s(120)
    with pytest.raises(ExceptionGroup, match="could not do all") as caught:
        world.sweep.sweep()
    assert [type(error) for error in caught.value.exceptions] == [IntegrityError]
    assert [queue for _, queue, _ in world.queues.messages] == ["registrations"]


def test_what_is_delivered_is_struck_out_and_not_sent_again() -> None:
    world = World()
    endpoints = Repository(Endpoint, world.documents, outbox_of(world))
    world.event(world.drop("one"))
    world.run(seconds=60)
    sent = len(world.queues.messages)
    assert endpoints.deliver_outboxes() == 0
    assert len(world.queues.messages) == sent


def test_what_waits_says_since_when_it_was_saved_also_where_it_is_a_message() -> None:
    world = World()
    alerts = Repository(Alert, world.documents, outbox_of(world))
    at = world.clock.now()
    fresh = Alert(id="alert-1", model="m", rule=AlertRule.SLOW, subject="s", sentence="slow", since=at, changed_at=at)
    alerts.create(fresh)
    world.clock.pass_s(60)
    world.queues.fuse = Fuse(at=1)

    def send(alert: Alert) -> bool:
        alert.send(TellNews(model="m", alert_id=alert.id, news=1), not_before=world.clock.now() + timedelta(hours=1))
        return True

    with pytest.raises(Killed):
        alerts.change("m", fresh.id, send)
    world.queues.fuse = Fuse()
    stored = world.documents.get(Container.REPORTS, "m", fresh.id)
    assert stored is not None
    assert waiting_since(stored.body) == at + timedelta(seconds=60)


def test_the_id_of_a_document_of_another_kind_names_nothing() -> None:
    world = World()
    letter = world.dead_letters.keep(Queue.VALIDATIONS, b"{}", message_id="1")
    queue_alert = next(world.alerts.firing(AlertRule.DEAD_LETTERS))
    alert = world.alerts.fire(AlertRule.ROLLOUT_HELD, f"endpoint:{MODEL}", "it is so", model=MODEL)
    before = dict(world.documents.held)
    for asked in (
        lambda: world.dead_letters.letter(queue_alert.id),
        lambda: world.dead_letters.replay(queue_alert.id, by="ann"),
        lambda: world.alerts.expire_silence(letter.id, by="ann"),
        lambda: world.retention.one(MODEL, alert.id),
    ):
        with pytest.raises(NotFoundError):
            asked()
    assert world.documents.held == before
