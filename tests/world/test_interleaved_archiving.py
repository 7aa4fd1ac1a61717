"""A version that is archived while somebody does something else with it: one of them hears of the other."""

from collections.abc import Callable
from functools import cache

import pytest

from shared.core.ids import VersionNumber
from shared.core.messages import ValidateVersion
from shared.core.verdict import Outcome, Verdict
from shared.registry.documents import ModelVersion, VersionState
from shared.registry.policy import RetentionPolicy
from shared.retention.documents import RetentionRun
from shared.validation.report import ValidationReport
from shared.validation.sandbox import Validation
from tests.world.interleaving import interleaved
from tests.world.strategies import policy, start, world_with
from tests.world.test_registration import validation_of
from tests.world.twins import twin
from tests.world.world import MODEL, World

REJECTED = 3
MONTH_S = 30 * 24 * 3_600.0
POLICY = policy().model_copy(update={"retention": RetentionPolicy(keep_latest=1, keep_days=7)})


@cache
def prepared() -> World:
    """A world whose version 1 serves; version 2 is validated and version 3 rejected, a month ago."""
    world = world_with(versions=2)
    world.put_policy(POLICY)
    world.registration.register(world.drop("worse", name="3.onnx"))
    world.validation.validate(ValidateVersion(model=MODEL, version=VersionNumber(REJECTED)))
    world.queues.messages.clear()
    world.clock.pass_s(MONTH_S)
    return world


def begun() -> World:
    return twin(prepared())


def version(world: World) -> ModelVersion:
    return world.registry.version(MODEL, VersionNumber(REJECTED))


def archive(world: World) -> None:
    world.rollouts.archive(MODEL, VersionNumber(REJECTED), by="ann", reason="it failed")


def run(world: World) -> RetentionRun:
    return world.retention.run(MODEL, world.retention.plan(MODEL).plan_id, by="ann")


def pass_and_start(world: World) -> None:
    """Somebody has it validated again, by another policy, and rolls it out."""
    world.registry.revalidate(MODEL, VersionNumber(REJECTED), by="bob", reason="under another policy")
    verdict = Verdict(check="accuracy", outcome=Outcome.PASS, sentence="it is good", n=100)
    report = ValidationReport(outcome=Outcome.PASS, verdicts=(verdict,))
    passing = validation_of(world, lambda **_: Validation(report=report, golden=None))
    passing.validate(ValidateVersion(model=MODEL, version=VersionNumber(REJECTED)))
    start(world, REJECTED, force=True, reason="its callers are ready")


@pytest.mark.parametrize("take_out", [archive, run])
def test_a_rejected_version_that_is_validated_again_and_rolled_out_meanwhile_is_not_archived(
    take_out: Callable[[World], object],
) -> None:
    for after in interleaved(begun, take_out, pass_and_start):
        kinds = [event.kind for event in after.audit.events(version(after).stream)]
        is_asked = "version_revalidated" in kinds
        assert (version(after).state is VersionState.ARCHIVED) is not is_asked
        rollout = after.endpoint().rollout
        assert rollout is not None
        assert (rollout.candidate.version == REJECTED) is is_asked


def test_retention_archives_nothing_that_is_validated_again_meanwhile() -> None:
    def ask_again(world: World) -> None:
        world.registry.revalidate(MODEL, VersionNumber(REJECTED), by="bob", reason="under another policy")

    for after in interleaved(begun, run, ask_again):
        kinds = [event.kind for event in after.audit.events(version(after).stream)]
        assert not {"version_revalidated", "version_archived"} <= set(kinds)


def test_two_calls_for_one_run_are_both_answered_with_it() -> None:
    plan_id = begun().retention.plan(MODEL).plan_id
    answers: list[list[RetentionRun]] = []

    def world() -> World:
        answers.append([])
        return begun()

    def call(world: World) -> None:
        answers[-1].append(world.retention.run(MODEL, plan_id, by="ann"))

    for after in interleaved(world, call, call):
        assert [run.plan_id for run in answers[-1]] == [plan_id] * 2
        assert version(after).state is VersionState.ARCHIVED
