"""Where a request says whom it is for: policy decides, and every plan from a rollout's start on tells the servers."""

from shared.registry.policy import Policy, ServingPolicy, ValidationPolicy
from shared.routing.plan import Role, RoutePlan, SubjectSource, plan_blob_name
from shared.store.ports import BlobContainer, Container
from tests.world.world import ENDPOINT, World

COOKIES = SubjectSource(header=None, body=False, cookie="visitor")


def published(world: World) -> RoutePlan:
    """The plan as the servers get it."""
    return RoutePlan.model_validate_json(world.blobs.held[BlobContainer.ROUTES, plan_blob_name(ENDPOINT)].data)


def by_cookie(*, of: SubjectSource = COOKIES) -> Policy:
    return Policy(serving=ServingPolicy(subject=of))


def test_every_plan_from_a_rollout_s_start_to_the_next_one_names_its_source() -> None:
    world = World()
    world.put_policy(by_cookie())
    world.event(world.drop("one"))
    while not world.documents.query(Container.ENDPOINTS).items:
        world.step()
    assert published(world).subject == COOKIES
    world.run()
    assert world.endpoint().active is None
    assert published(world).generation > 1
    assert published(world).subject == COOKIES


def test_a_policy_that_changes_holds_from_the_next_rollout_on() -> None:
    world = World()
    world.put_policy(by_cookie())
    world.event(world.drop("one"))
    world.run()
    world.put_policy(by_cookie(of=SubjectSource(header="x-account")))
    assert published(world).subject == COOKIES
    world.event(world.drop("two", name="two.onnx"))
    world.run(seconds=1)
    assert world.endpoint().active is not None
    assert published(world).subject == SubjectSource(header="x-account")


def test_without_a_policy_the_header_and_the_body_are_heard() -> None:
    world = World()
    world.event(world.drop("one"))
    world.run()
    assert published(world).subject == SubjectSource(header="x-slipway-user", body=True, cookie=None)


def test_what_a_policy_says_of_numbers_that_are_none_holds_while_serving_too() -> None:
    world = World()
    world.event(world.drop("one"))
    world.run()
    assert [route.allow_nan for route in published(world).routes] == [False]
    world.put_policy(Policy(validation=ValidationPolicy(allow_nan=True)))
    world.event(world.drop("two", name="two.onnx"))
    world.run(seconds=1)
    assert {route.role: route.allow_nan for route in published(world).routes} == {
        Role.STABLE: False,
        Role.CANDIDATE: True,
    }
