"""An endpoint with a stable version and a second one to roll out, for tests of what becomes of rollouts."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from functions.rollouts import carry_out
from shared.core.ids import VersionNumber
from shared.core.messages import CommandKind, Queue, RolloutCommand, ValidateVersion
from shared.registry.policy import Policy
from shared.registry.rollout_policy import RolloutPolicy, Stage, Strategy
from shared.rollout import reverts
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.rollout.machine import RolloutState
from shared.routing.plan import RoutePlan, artifact_blob_name, plan_blob_name
from shared.store.ports import BlobContainer
from tests.world.world import ENDPOINT, GRACE, MODEL, Pod, World

STAGES = (Stage(weight_bp=1_000, duration_s=10), Stage(weight_bp=5_000, duration_s=10))

SLOW_STAGES = tuple(stage.model_copy(update={"duration_s": 40.0}) for stage in STAGES)
"""They last longer than it takes to see that a pod fell silent."""


def policy(**rollout: Any) -> Policy:
    """A policy by which nothing starts by itself, ticks each second, and stages are short."""
    fields: dict[str, Any] = {"automatic": False, "stages": STAGES, "watch_s": 10, "tick_s": 1, "min_requests": 50}
    return Policy(rollout=RolloutPolicy(**(fields | rollout)))


class Forgiving(World):
    """A world in which a command that is refused is answered in the log, as the functions do."""

    def handle(self, queue: str, body: str) -> None:
        if queue == Queue.ROLLOUT_COMMANDS:
            carry_out(self.rollouts.handle, RolloutCommand.model_validate_json(body))
        else:
            super().handle(queue, body)


def world_with(*, versions: int = 2, pods: int = 1, grace: timedelta = GRACE, **rollout: Any) -> World:
    """A world whose version 1 serves, and whose other versions are validated."""
    world = Forgiving(grace=grace)
    world.others = [Pod(name=f"pod-{n}") for n in range(2, pods + 1)]
    world.put_policy(policy(strategy=Strategy.ALL_AT_ONCE))
    for number in range(1, versions + 1):
        world.registration.register(world.drop(f"content {number}", name=f"{number}.onnx"))
        world.validation.validate(ValidateVersion(model=MODEL, version=VersionNumber(number)))
    start(world, 1)
    world.run(seconds=4)
    assert world.stable == 1
    world.put_policy(policy(**rollout))
    return world


def alter(world: World, number: int) -> None:
    """Have the stored bytes of a version be other ones, and be found so."""
    version = world.registry.version(MODEL, VersionNumber(number))
    world.blobs.put(BlobContainer.ARTIFACTS, artifact_blob_name(version.artifact_digest), b"other", {})
    world.integrity.audit(MODEL)
    assert world.registry.version(MODEL, VersionNumber(number)).altered


def change(world: World, do: Callable[[Endpoint], object]) -> None:
    """Change the endpoint as something else than a command would."""

    def changed(endpoint: Endpoint) -> bool:
        do(endpoint)
        return True

    world.rollouts._endpoints.change(ENDPOINT, ENDPOINT_ID, changed)


def quarantine(world: World, version: int) -> None:
    """Have a version be known to fail."""
    change(world, lambda endpoint: reverts.quarantine(endpoint, version, "it failed", world.clock.now(), None))


def start(world: World, version: int = 2, command_id: str = "", **fields: Any) -> Rollout | None:
    return world.rollouts.handle(
        RolloutCommand(
            command=CommandKind.START,
            command_id=command_id or f"start-{version}",
            endpoint=ENDPOINT,
            version=version,
            requested_by="ann",
            **fields,
        )
    )


def give(world: World, command: CommandKind, command_id: str = "", by: str = "bob", **fields: Any) -> Rollout | None:
    return world.rollouts.handle(
        RolloutCommand(
            command=command, command_id=command_id or f"{command}-1", endpoint=ENDPOINT, requested_by=by, **fields
        )
    )


def rollout(world: World) -> Rollout:
    found = world.endpoint().rollout
    assert found is not None
    return found


def state(world: World) -> RolloutState:
    return rollout(world).state


def run_until(world: World, wanted: RolloutState, *, stage: int | None = None, within_s: int = 120) -> None:
    """Let the world go on until the rollout stands so."""
    for _ in range(within_s):
        if state(world) is wanted and stage in {None, rollout(world).stage}:
            return
        world.run(seconds=1)
    raise AssertionError(f"{state(world)} at stage {rollout(world).stage}: {rollout(world).reason}")


def published(world: World) -> RoutePlan:
    """The plan that the servers see, which is the one that the endpoint's state calls for."""
    plan = RoutePlan.model_validate_json(world.blobs.held[BlobContainer.ROUTES, plan_blob_name(MODEL)].data)
    assert plan == world.endpoint().plan()
    return plan


def weight_bp(world: World) -> int:
    candidate = published(world).candidate
    return candidate.weight_bp if candidate else 0


def weights_of(world: World, *, seconds: int = 90) -> list[int]:
    """The weights that the candidate is given one after the other, until the rollout is over."""
    found = [weight_bp(world)]
    for _ in range(seconds):
        if rollout(world).state.is_over:
            break
        world.run(seconds=1)
        if weight_bp(world) != found[-1]:
            found.append(weight_bp(world))
    return found
