"""The whole job over ports in memory: through double events, lost events, and a kill at every port call."""

import random

import pytest

from shared.core.errors import ConflictError
from shared.core.messages import CommandKind, RolloutCommand
from shared.registry.documents import DropState, VersionState
from shared.registry.policy import Policy, RolloutPolicy, Stage
from shared.rollout.machine import RolloutState
from shared.routing.plan import RoutePlan, plan_blob_name
from shared.store.ports import BlobContainer, Container
from tests.unit.world.fakes import Fuse
from tests.unit.world.world import MODEL, World

QUICK = Policy(
    rollout=RolloutPolicy(
        stages=(Stage(weight_bp=1_000, duration_s=20), Stage(weight_bp=5_000, duration_s=20)), tick_s=5
    )
)


def published(world: World) -> RoutePlan:
    """The plan that the servers see."""
    return RoutePlan.model_validate_json(world.blobs.held[BlobContainer.ROUTES, plan_blob_name(MODEL)].data)


def outcome_of(world: World) -> dict[str, object]:
    """What must be the same however the events came: states, serving version, audit."""
    endpoint = world.endpoint()
    return {
        "versions": {v.version: (v.digest, v.state) for v in world.registry.versions(MODEL).items},
        "drops": sorted((d.blob, d.state, d.version) for d in world.registry.drops(MODEL).items),
        "stable": endpoint.stable.version if endpoint.stable else None,
        "rollouts": sorted((r.rollout_id, r.state) for r in world.rollouts.rollouts(endpoint.endpoint)),
        "verified": world.audit.verify().verified,
        "plan_follows_state": published(world) == endpoint.plan(),
        "undelivered": [key for key, doc in world.documents.held.items() if doc.body.get("outbox_pending")],
        "unsettled": [v.version for v in world.registry.versions(MODEL).items if v.rollout_pending],
    }


def two_versions(world: World, **delivery: object) -> None:
    """The job: a first version, then a second one through its canary."""
    world.put_policy(QUICK)
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=30, **delivery)
    world.event(world.drop("two", name="two.onnx"))
    world.run(seconds=330, **delivery)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, object]:
    """What the job leads to when nothing goes wrong."""
    world = World()
    two_versions(world)
    return outcome_of(world)


def test_a_drop_becomes_a_version_that_is_validated_rolled_out_in_stages_and_promoted(
    undisturbed: dict[str, object],
) -> None:
    assert undisturbed["stable"] == 2
    assert [state for _, state in undisturbed["rollouts"]] == [RolloutState.PROMOTED] * 2
    assert undisturbed["verified"] is True
    assert undisturbed["plan_follows_state"] is True
    assert undisturbed["undelivered"] == []
    assert undisturbed["unsettled"] == []


def test_the_first_version_takes_all_traffic_at_once_and_the_second_in_the_policys_stages() -> None:
    world = World()
    world.put_policy(QUICK)
    world.event(world.drop("one"))
    world.run(seconds=10)
    world.event(world.drop("two", name="two.onnx"))
    weights = []
    for _ in range(80):
        world.run(seconds=1)
        plan = published(world)
        weights.append((plan.candidate.weight_bp if plan.candidate else None, plan.stable.version))
    seen = list(dict.fromkeys(weights))
    assert seen == [(0, 1), (1_000, 1), (5_000, 1), (None, 2)]


@pytest.mark.parametrize("seed", range(5))
def test_events_that_come_ten_times_in_any_order_have_their_effect_once(
    seed: int, undisturbed: dict[str, object]
) -> None:
    world = World()
    two_versions(world, copies=10, rng=random.Random(seed))
    assert outcome_of(world) == undisturbed


def test_a_drop_whose_event_is_lost_is_registered_by_the_sweep(undisturbed: dict[str, object]) -> None:
    world = World()
    world.put_policy(QUICK)
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=30)
    world.drop("two", name="two.onnx")
    world.run(seconds=500)
    assert outcome_of(world) == undisturbed


def test_every_message_that_is_lost_is_made_up_for_by_the_sweep(undisturbed: dict[str, object]) -> None:
    world = World()
    rng = random.Random(7)
    world.put_policy(QUICK)
    world.drop("one", name="one.onnx")
    for second in range(4_000):
        if second == 1_500:
            world.drop("two", name="two.onnx")
        world.queues.messages = [message for message in world.queues.messages if rng.random() < 0.7]
        world.run(seconds=1)
        if second % 60 == 0:
            world.sweep.sweep()
    assert outcome_of(world) == undisturbed


def _port_calls_of_the_job() -> int:
    world = World()
    two_versions(world)
    return world.fuse.calls


def test_a_kill_at_any_port_call_leaves_the_job_to_end_as_if_undisturbed(undisturbed: dict[str, object]) -> None:
    calls = _port_calls_of_the_job()
    assert calls > 200
    rng = random.Random(11)
    # Every call of the first minute, where most happens, and a sample of the rest.
    places = sorted({*range(1, 160), *rng.sample(range(160, calls), 60)})
    for at in places:
        for after in (False, True):
            world = World()
            fuse = Fuse(at=at, after=after)
            world.fuse = world.documents.fuse = world.blobs.fuse = world.queues.fuse = fuse
            start_surviving(world)
            world.run(seconds=330)
            assert outcome_of(world) == undisturbed, (at, after)


def start_surviving(world: World) -> None:
    """The job's start, whose own calls (the policy's) may be killed as well: the caller tries again."""
    from tests.unit.world.fakes import Killed

    for _ in range(2):
        try:
            world.put_policy(QUICK)
            break
        except Killed:
            continue
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=120)
    world.event(world.drop("two", name="two.onnx"))


def test_the_same_bytes_dropped_under_two_names_are_one_version() -> None:
    world = World()
    world.event(world.drop("one", name="one.onnx"))
    world.event(world.drop("one", name="again.onnx"))
    world.run(seconds=10)
    assert [v.version for v in world.registry.versions(MODEL).items] == [1]
    assert {(d.blob, d.version) for d in world.registry.drops(MODEL).items} == {
        ("digits/one.onnx", 1),
        ("digits/again.onnx", 1),
    }


def test_a_blob_overwritten_with_other_bytes_is_a_drop_and_a_version_of_its_own() -> None:
    world = World()
    world.event(world.drop("one"))
    world.run(seconds=10)
    world.event(world.drop("two"))
    world.run(seconds=10)
    assert [v.version for v in world.registry.versions(MODEL).items] == [1, 2]


def test_a_refused_drop_is_recorded_with_its_reason_and_nothing_is_registered() -> None:
    world = World()
    world.event(world.drop("bad"))
    world.run(seconds=5)
    (drop,) = world.registry.drops(MODEL).items
    assert (drop.state, drop.code) == (DropState.REFUSED, "not_onnx")
    assert "not an ONNX model" in drop.reason
    assert not world.registry.versions(MODEL).items
    assert {key[0] for key in world.documents.held} == {Container.MODELS, Container.AUDIT}
    assert {container for container, _ in world.blobs.held} == {BlobContainer.INCOMING}


@pytest.mark.parametrize(
    ("blob", "code"),
    [
        ("Digits/model.onnx", "bad_name"),
        ("no-folder.onnx", "bad_place"),
        ("digits/deep/model.onnx", "bad_place"),
        ("digits//model.onnx", "bad_place"),
        ("../model.onnx", "bad_name"),
        ("digits/readme.txt", "unknown_form"),
        ("digits/", "bad_place"),
    ],
)
def test_a_drop_at_a_wrong_place_is_refused_with_a_code(blob: str, code: str) -> None:
    world = World()
    world.blobs.put(BlobContainer.INCOMING, blob, b"one", {})
    drop = world.registry.register(blob)
    assert drop is not None
    assert (drop.state, drop.code) == (DropState.REFUSED, code)


def test_a_rejected_version_is_not_rolled_out() -> None:
    world = World()
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=10)
    world.event(world.drop("worse", name="worse.onnx"))
    world.run(seconds=100)
    versions = {v.version: v for v in world.registry.versions(MODEL).items}
    assert versions[2].state is VersionState.REJECTED
    assert versions[2].validation is not None
    assert versions[2].validation.verdicts[0].sentence == "the stand-in says fail"
    assert world.endpoint().stable is not None
    assert world.endpoint().stable.version == 1
    command = RolloutCommand(
        command=CommandKind.START, command_id="c", endpoint=MODEL, version=2, requested_by="somebody"
    )
    with pytest.raises(ConflictError, match="rejected"):
        world.rollouts.handle(command)


def test_a_candidate_that_errs_is_taken_back_and_stable_serves_on() -> None:
    world = World()
    world.put_policy(QUICK)
    world.pod.errors = {2: 0.2}
    two_versions(world)
    endpoint = world.endpoint()
    assert endpoint.rollout is not None
    assert endpoint.rollout.state is RolloutState.ROLLED_BACK
    assert endpoint.rollout.stage == 0
    assert "3 failed checks in a row" in endpoint.rollout.reason
    assert published(world).candidate is None
    assert published(world).stable.version == 1
    kinds = [event.kind for event in world.audit.events(f"endpoint:{MODEL}")]
    assert kinds.count("check_failed") == 3
    assert kinds[-1] == "rollout_rolled_back"


def test_a_rolled_back_version_does_not_start_again_by_itself() -> None:
    world = World()
    world.put_policy(QUICK)
    world.pod.errors = {2: 0.2}
    two_versions(world, copies=3)
    world.run(seconds=300)
    assert [r.state for r in world.rollouts.rollouts(world.endpoint().endpoint)] == [
        RolloutState.PROMOTED,
        RolloutState.ROLLED_BACK,
    ]


def test_a_candidate_that_no_pod_can_load_is_taken_back_with_the_pods_reason() -> None:
    world = World()
    world.put_policy(QUICK)
    world.pod.unloadable = {2: "golden rows differ"}
    two_versions(world)
    endpoint = world.endpoint()
    assert endpoint.rollout is not None
    assert endpoint.rollout.state is RolloutState.ROLLED_BACK
    assert "golden rows differ" in endpoint.rollout.reason


def test_a_version_validated_during_a_rollout_starts_when_that_is_over() -> None:
    world = World()
    world.put_policy(QUICK)
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=10)
    world.event(world.drop("two", name="two.onnx"))
    world.run(seconds=10)
    world.event(world.drop("three", name="three.onnx"))
    world.run(seconds=5)
    assert world.endpoint().queued_version == 3
    world.run(seconds=200)
    endpoint = world.endpoint()
    assert endpoint.queued_version is None
    assert endpoint.stable is not None
    assert endpoint.stable.version == 3
    assert [r.candidate.version for r in world.rollouts.rollouts(endpoint.endpoint)] == [1, 2, 3]


def test_two_endpoints_writers_at_once_move_a_rollout_once() -> None:
    world = World()
    world.put_policy(QUICK)
    two_versions(world, copies=2)
    events = world.audit.events(f"endpoint:{MODEL}")
    stages = [event.data["stage"] for event in events if event.kind == "stage_started"]
    assert stages == [0, 1]
