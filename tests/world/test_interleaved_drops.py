"""A drop that two hosts look at at once ends as it would have, had one come after the other."""

from contextlib import suppress
from typing import Any

from shared.registration.documents import DropState
from shared.registry.policy import Policy, SigningPolicy
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.sandbox import Intake
from tests.world.fakes import Killed
from tests.world.interleaving import interleaved
from tests.world.test_registration import KEY, registry_of
from tests.world.world import MODEL, World, _intake


def takes_signed(*arguments: Any, signing: SigningPolicy, **named: Any) -> Intake:
    if signing.required:
        raise DropRefusedError(RefusalCode.UNSIGNED, "it is not signed")
    return _intake(*arguments, **named)


def dies(*_: Any, **__: Any) -> Intake:
    raise Killed


def register(world: World, intake: Any = takes_signed) -> None:
    with suppress(Killed):
        registry_of(world, intake=intake).register(f"{MODEL}/model.onnx")


def test_a_refusal_by_a_policy_that_was_replaced_meanwhile_ends_no_attempt_under_the_new_one() -> None:
    def world() -> World:
        made = World()
        made.put_policy(Policy(signing=SigningPolicy(required=True, trusted_keys=(KEY,))))
        made.drop("one")
        return made

    def begin_under_another(world: World) -> None:
        world.put_policy(Policy())
        register(world, dies)

    for after in interleaved(world, register, begin_under_another):
        # The message of who died comes again.
        register(after)
        (drop,) = after.registration.drops(MODEL).items
        assert (drop.state, drop.version) == (DropState.REGISTERED, 1)
