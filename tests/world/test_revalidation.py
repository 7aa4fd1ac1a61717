"""A rejected version is validated again when somebody asks, and at no other time."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from shared.core.errors import ConflictError
from shared.core.ids import VersionNumber
from shared.core.messages import ValidateVersion
from shared.core.verdict import Outcome, Verdict
from shared.registry.documents import ModelVersion, VersionState
from shared.registry.policy import Policy, ValidationPolicy
from shared.validation.report import ValidationReport
from shared.validation.sandbox import Validation
from tests.world.fakes import Killed
from tests.world.interleaving import interleaved
from tests.world.test_registration import validation_of
from tests.world.world import MODEL, World

ONE = VersionNumber(1)
WHY = "the policy has changed"


def rejected() -> World:
    world = World()
    world.event(world.drop("worse"))
    world.run(seconds=5)
    assert the_version(world).state is VersionState.REJECTED
    return world


def the_version(world: World) -> ModelVersion:
    return world.registry.version(MODEL, ONE)


def passing(**_: object) -> Validation:
    verdict = Verdict(check="accuracy", outcome=Outcome.PASS, sentence="good now", n=100)
    return Validation(report=ValidationReport(outcome=Outcome.PASS, verdicts=(verdict,)), golden=None)


def kinds(world: World) -> list[str]:
    return [event.kind for event in world.audit.events(f"version:{MODEL}:1")]


def test_a_rejected_version_is_checked_anew_and_rolls_out_where_it_passes() -> None:
    world = rejected()
    asked = world.registry.revalidate(MODEL, ONE, by="ann", reason=WHY)
    assert (asked.state, asked.decided_at, asked.failures) == (VersionState.REGISTERED, None, 0)
    assert asked.validation is not None
    decided = validation_of(world, passing).validate(ValidateVersion(model=MODEL, version=1))
    assert decided is not None
    assert (decided.state, decided.attempts) == (VersionState.VALIDATED, 2)
    world.run(seconds=60)
    assert world.stable == 1
    assert kinds(world).count("version_revalidated") == 1
    assert world.audit.verify(None).problems == []


def test_one_that_is_as_bad_as_before_is_rejected_again() -> None:
    world = rejected()
    world.registry.revalidate(MODEL, ONE, by="ann", reason=WHY)
    world.run(seconds=5)
    assert (the_version(world).state, the_version(world).attempts) == (VersionState.REJECTED, 2)


def test_a_version_that_is_not_decided_is_left_as_it_is() -> None:
    world = rejected()
    for _ in range(2):
        world.registry.revalidate(MODEL, ONE, by="ann", reason=WHY)
    assert kinds(world).count("version_revalidated") == 1


def test_a_validated_version_is_not_put_in_doubt() -> None:
    world = World()
    world.event(world.drop("one"))
    world.run(seconds=5)
    with pytest.raises(ConflictError, match="only a rejected one is validated again"):
        world.registry.revalidate(MODEL, ONE, by="ann", reason=WHY)


def test_a_kill_at_any_port_call_leaves_it_asked_for_once_or_not_at_all() -> None:
    for at in range(1, 12):
        world = rejected()
        world.fuse.at = world.fuse.calls + at
        try:
            world.registry.revalidate(MODEL, ONE, by="ann", reason=WHY)
        except Killed:
            world.registry.revalidate(MODEL, ONE, by="ann", reason=WHY)
        world.fuse.at = None
        world.run(seconds=120)
        assert (the_version(world).state, the_version(world).attempts) == (VersionState.REJECTED, 2), at
        assert kinds(world).count("version_revalidated") == 1, at


def check(*, policy: ValidationPolicy, **_: object) -> Validation:
    """Passes by a policy that asks for little, and fails by one that asks for more."""
    if policy.accuracy is None:
        return passing()
    verdict = Verdict(check="accuracy", outcome=Outcome.FAIL, sentence="bad", n=100)
    return Validation(report=ValidationReport(outcome=Outcome.FAIL, verdicts=(verdict,)), golden=None)


def breaking(**_: object) -> Validation:
    raise OSError("the disk is full")


def attempt(world: World, checks: Callable[..., Validation] = check) -> ModelVersion | None:
    return validation_of(world, checks).validate(ValidateVersion(model=MODEL, version=1))


def undecided() -> World:
    world = World()
    world.drop("one")
    world.registration.register(f"{MODEL}/model.onnx")
    assert the_version(world).state is VersionState.REGISTERED
    return world


def reject_and_ask_again(world: World) -> None:
    attempt(world)
    world.put_policy(Policy(validation=ValidationPolicy(accuracy=None)))
    world.registry.revalidate(MODEL, ONE, by="ann", reason=WHY)


def test_an_attempt_from_before_somebody_asked_again_decides_nothing() -> None:
    for world in interleaved(undecided, attempt, reject_and_ask_again):
        assert the_version(world).state is not VersionState.REJECTED
        decided = attempt(world)
        assert decided is not None
        assert decided.state is VersionState.VALIDATED
        assert decided.validation is not None
        assert decided.validation.policy_version == world.registry.model(MODEL).policy_version


def test_a_failure_from_before_somebody_asked_again_is_not_counted() -> None:
    def fail(world: World) -> None:
        with suppress(OSError):
            attempt(world, breaking)

    counted = [the_version(world).failures for world in interleaved(undecided, fail, reject_and_ask_again)]
    # Before its first write it has not begun: that one was made after somebody asked.
    assert counted == [1, 1, *[0] * (len(counted) - 2)]
    assert len(counted) > 5
