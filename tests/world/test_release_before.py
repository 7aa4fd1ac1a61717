"""What is stored of an endpoint without slots is read by the app of the release before slots, which refuses a field
that it does not know: that app may be put back, and runs beside the next one while an update is under way.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from shared.core.messages import CommandKind
from shared.registry.documents import Model, ModelVersion
from shared.registry.rollout_policy import RolloutPolicy, Strategy
from shared.rollout.documents import RolloutRecord
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.progress import PodSeen
from shared.rollout.rollbacks import RollbackRecord
from shared.rollout.tickrecord import TickRecord
from shared.store.ports import BlobContainer
from tests.world.strategies import give, run_until, start, world_with
from tests.world.test_dedicated import dedicated
from tests.world.world import World

FIELDS: dict[str, set[str]] = {
    name: set(fields)
    for name, fields in json.loads(Path(__file__).with_name("release_before_fields.json").read_text()).items()
}
"""The fields of each part of a document, as that release has them."""
KINDS: dict[str, type[BaseModel]] = {
    "endpoint": Endpoint,
    "rollout": RolloutRecord,
    "rollback": RollbackRecord,
    "model": Model,
    "version": ModelVersion,
}


def stored(world: World) -> Iterator[BaseModel]:
    """The documents of models and endpoints, and the records of ticks."""
    for held in world.documents.held.values():
        if kind := KINDS.get(held.body.get("kind", "")):
            found = kind.model_validate(held.body)
            assert found.model_dump(mode="json") == held.body
            yield found
    for (container, name), blob in world.blobs.held.items():
        if container is BlobContainer.REPORTS and name.startswith("rollouts/"):
            yield TickRecord.model_validate_json(blob.data)


def unknown(value: object) -> Iterator[str]:
    """The fields of a document, and of its parts, that the release before does not have."""
    if isinstance(value, BaseModel):
        name, told = type(value).__name__, value.model_dump(mode="json")
        yield from (f"{name}.{field}" for field in told if field not in FIELDS[name])
        for field in told:
            yield from unknown(getattr(value, field))
        if isinstance(value, TickRecord):
            yield from (f"found.{field}" for field in {*value.found, *value.left} - FIELDS["Rollout"])
    elif isinstance(value, dict):
        for item in value.values():
            yield from unknown(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from unknown(item)


def seen(world: World) -> set[str]:
    """Walk through what is stored now; the kinds of what there is."""
    documents = list(stored(world))
    assert [field for document in documents for field in unknown(document)] == []
    return {type(document).__name__ for document in documents}


@pytest.mark.parametrize("strategy", [Strategy.CANARY, Strategy.ROLLING])
def test_the_release_before_reads_whatever_is_stored_of_an_endpoint_without_slots(strategy: Strategy) -> None:
    world = world_with(versions=4, pods=2, strategy=strategy, watch_s=4)
    start(world, 2)
    world.run(seconds=1)
    seen(world)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    # A pod that applies each plan late reports requests under the one before.
    world.others[0].is_stuck = True
    world.run(seconds=3)
    seen(world)
    world.others[0].is_stuck = False
    run_until(world, RolloutState.PROMOTED)
    seen(world)
    start(world, 3)
    run_until(world, RolloutState.PROGRESSING)
    world.others[0].is_stuck = True
    give(world, CommandKind.ROLLBACK)
    world.run(seconds=3)
    seen(world)
    world.others[0].is_stuck = False
    world.run(seconds=10)
    start(world, 4)
    run_until(world, RolloutState.PROGRESSING)
    give(world, CommandKind.ABORT)
    world.run(seconds=3)
    kinds = {"Endpoint", "RolloutRecord", "RollbackRecord", "Model", "ModelVersion", "TickRecord"}
    assert seen(world) == kinds


def test_slots_are_what_it_does_not_read() -> None:
    world = dedicated(lag_s=0)
    start(world, 2)
    run_until(world, RolloutState.PROGRESSING)
    found = {field for document in stored(world) for field in unknown(document)}
    assert {"Endpoint.is_gated", "Target.slot", "RolloutPolicy.placement", "PodSeen.slot", "PodGroup.slot"} <= found


def test_what_is_left_out_is_read_as_what_it_is() -> None:
    assert RolloutPolicy.model_validate(RolloutPolicy().model_dump(mode="json")) == RolloutPolicy()
    told = {"sequence": 1, "generation": 1, "at": "2026-11-21T08:00:00Z"}
    assert PodSeen.model_validate({**told, "slot": None, "late_at": None}) == PodSeen.model_validate(told)
