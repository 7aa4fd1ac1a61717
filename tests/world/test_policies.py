"""Policies are numbered and kept, and those that went by one say which."""

import pytest

from shared.core.errors import ConflictError, InvalidInputError, NotFoundError
from shared.registry.policy import Policy, SigningPolicy, ValidationPolicy
from tests.unit.signing import made
from tests.world.fakes import Fuse, Killed
from tests.world.test_job import QUICK
from tests.world.world import ENDPOINT, MODEL, World

LOOSE = Policy(validation=ValidationPolicy(accuracy=0.5))
STRICT = Policy(validation=ValidationPolicy(accuracy=0.99))


def kept(world: World) -> list[tuple[int, Policy]]:
    return [
        (found["policy_version"], Policy.model_validate(found["policy"]))
        for found in world.registry.policies(MODEL).items
    ]


def test_each_policy_that_is_set_has_a_number_and_is_kept_as_it_was() -> None:
    world = World()
    for policy in (LOOSE, STRICT, STRICT, LOOSE):
        world.put_policy(policy)
    assert kept(world) == [(1, LOOSE), (2, STRICT), (3, LOOSE)]
    assert world.registry.model(MODEL).policy_version == 3
    assert world.registry.policy(MODEL, 2)["policy"]["validation"]["accuracy"] == 0.99
    with pytest.raises(NotFoundError, match="policy 4 of model 'digits' does not exist: they are numbered 1 to 3"):
        world.registry.policy(MODEL, 4)


def test_a_trusted_key_that_is_none_is_refused_by_its_place() -> None:
    broken = "-----BEGIN PUBLIC KEY-----\n" + "A" * 64 + "\n-----END PUBLIC KEY-----\n"
    good = made.public_key(made.private_key()).pem
    world = World()
    with pytest.raises(InvalidInputError, match="the key 2 of the list"):
        world.put_policy(Policy(signing=SigningPolicy(trusted_keys=(good, broken))))
    world.put_policy(Policy(signing=SigningPolicy(trusted_keys=(good,))))


def test_a_policy_is_set_only_over_the_one_that_was_expected() -> None:
    world = World()
    world.registry.put_policy(MODEL, LOOSE, by="ann", expected_version=0)
    with pytest.raises(ConflictError, match="has the number 1, and 0 was expected"):
        world.registry.put_policy(MODEL, STRICT, by="bob", expected_version=0)
    # An answer that was lost is asked for again.
    world.registry.put_policy(MODEL, LOOSE, by="ann", expected_version=0)
    world.registry.put_policy(MODEL, STRICT, by="bob", expected_version=1)
    assert kept(world) == [(1, LOOSE), (2, STRICT)]


def test_a_kill_at_every_port_call_leaves_each_policy_kept_once() -> None:
    at, died = 0, True
    while died:
        at += 1
        world = World()
        world.put_policy(LOOSE)
        world.documents.fuse = Fuse(at=at)
        died = False
        try:
            world.put_policy(STRICT)
        except Killed:
            died = True
        world.documents.fuse = Fuse()
        in_force = world.registry.model(MODEL)
        assert kept(world) == [(1, LOOSE), (2, STRICT)][: in_force.policy_version]
        assert world.registry.policy(MODEL, in_force.policy_version)["policy"] == in_force.policy.model_dump(
            mode="json"
        )
        world.put_policy(STRICT)
        world.sweep.sweep()
        assert kept(world) == [(1, LOOSE), (2, STRICT)]
        assert world.audit.verify().verified
    assert at > 4


def test_a_rollout_says_which_policy_it_goes_by_though_another_one_is_set_meanwhile() -> None:
    world = World()
    world.put_policy(LOOSE)
    world.put_policy(QUICK)
    world.event(world.drop("one"))
    world.run(seconds=2)
    world.put_policy(STRICT)
    world.run(seconds=20)
    (rollout,) = world.rollouts.rollouts(ENDPOINT)
    assert rollout.policy_version == 2
    (started,) = [event for event in world.audit.events(f"endpoint:{MODEL}") if event.kind == "rollout_started"]
    assert started.data["policy_version"] == 2


def test_a_policy_that_is_refused_makes_no_model() -> None:
    world = World()
    with pytest.raises(ConflictError, match="has the number 0, and 7 was expected"):
        world.registry.put_policy(MODEL, LOOSE, by="ann", expected_version=7)
    assert world.registry.models().items == []
