"""The whole job over ports in memory: through double events, lost events, and a kill at every port call."""

import random
from typing import Any

import pytest

from shared.core.errors import ConflictError
from shared.core.ids import VersionNumber
from shared.core.messages import CommandKind, Queue, RolloutCommand, ValidateVersion
from shared.registration.documents import DropState
from shared.registry.documents import VersionState
from shared.registry.policy import Policy, ValidationPolicy
from shared.registry.rollout_policy import RolloutPolicy, Stage
from shared.rollout.documents import automatic_command_id
from shared.rollout.machine import RolloutState
from shared.routing.plan import RoutePlan, plan_blob_name
from shared.store.ports import BlobContainer, Container
from shared.telemetry.evidence import MAX_WINDOW_BYTES
from shared.telemetry.window import window_blob_name
from tests.world.fakes import Fuse, Killed
from tests.world.world import ENDPOINT, GRACE, MODEL, World

QUICK = Policy(
    rollout=RolloutPolicy(
        watch_s=0, stages=(Stage(weight_bp=1_000, duration_s=20), Stage(weight_bp=5_000, duration_s=20)), tick_s=5
    )
)


def published(world: World) -> RoutePlan:
    """The plan that the servers see."""
    return RoutePlan.model_validate_json(world.blobs.held[BlobContainer.ROUTES, plan_blob_name(MODEL)].data)


def outcome_of(world: World) -> dict[str, Any]:
    """What must be the same however the events came: states, serving version, audit."""
    endpoint = world.endpoint()
    return {
        "versions": {v.version: (v.digest, v.state) for v in world.registry.versions(MODEL).items},
        "drops": sorted((d.blob, d.state, d.version) for d in world.registration.drops(MODEL).items),
        "stable": world.stable,
        "rollouts": sorted((r.rollout_id, r.state) for r in world.rollouts.rollouts(ENDPOINT)),
        "verified": world.audit.verify().verified,
        "plan_follows_state": published(world) == endpoint.plan(),
        "undelivered": [key for key, doc in world.documents.held.items() if doc.body.get("outbox_pending")],
        "unsettled": [v.version for v in world.registry.versions(MODEL).items if v.rollout_pending],
    }


def two_versions(world: World, **delivery: Any) -> None:
    """The job: a first version, then a second one through its canary."""
    world.put_policy(QUICK)
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=30, **delivery)
    world.event(world.drop("two", name="two.onnx"))
    world.run(seconds=330, **delivery)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """What the job leads to when nothing goes wrong."""
    world = World()
    two_versions(world)
    return outcome_of(world)


def test_a_drop_becomes_a_version_that_is_validated_rolled_out_in_stages_and_promoted(
    undisturbed: dict[str, Any],
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
        weights.append((plan.candidate.weight_bp if plan.candidate else None, world.stable))
    seen = list(dict.fromkeys(weights))
    assert seen == [(0, 1), (1_000, 1), (5_000, 1), (None, 2)]


@pytest.mark.parametrize("seed", range(5))
def test_events_that_come_ten_times_in_any_order_have_their_effect_once(seed: int, undisturbed: dict[str, Any]) -> None:
    world = World()
    two_versions(world, copies=10, rng=random.Random(seed))
    assert outcome_of(world) == undisturbed


def test_a_drop_whose_event_is_lost_is_registered_by_the_sweep(undisturbed: dict[str, Any]) -> None:
    world = World()
    world.put_policy(QUICK)
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=30)
    world.drop("two", name="two.onnx")
    world.run(seconds=500)
    assert outcome_of(world) == undisturbed


@pytest.mark.parametrize("seed", range(5))
def test_messages_that_are_lost_are_made_up_for_by_the_sweep(seed: int, undisturbed: dict[str, Any]) -> None:
    world = World()
    rng = random.Random(seed)
    world.queues.loses = lambda: rng.random() < 0.5
    world.put_policy(QUICK)
    world.drop("one", name="one.onnx")
    world.run(seconds=2_500)
    world.drop("two", name="two.onnx")
    world.run(seconds=5_000)
    assert outcome_of(world) == undisturbed


def _port_calls_of_the_job() -> int:
    world = World()
    two_versions(world)
    return world.fuse.calls


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.long)])
def test_a_kill_at_an_early_port_call_or_a_sampled_later_one_leaves_the_job_to_end_as_if_undisturbed(
    undisturbed: dict[str, Any], step: int
) -> None:
    calls = _port_calls_of_the_job()
    assert calls > 200
    rng = random.Random(11)
    # The calls of the first minute, where most happens, and a sample of the rest.
    places = sorted({*range(1, 160, step), *rng.sample(range(160, calls), 60 // step)})
    for at in places:
        world = World()
        world.documents.fuse = world.blobs.fuse = world.queues.fuse = Fuse(at=at)
        start_surviving(world)
        world.run(seconds=330)
        assert outcome_of(world) == undisturbed, at


def start_surviving(world: World) -> None:
    """The job's start, whose own calls (the policy's) may be killed as well: the caller tries again."""
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
    assert {(d.blob, d.version) for d in world.registration.drops(MODEL).items} == {
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
    (drop,) = world.registration.drops(MODEL).items
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
        ("digits/.deep/model.onnx", "bad_place"),
        ("Digits/folder/model.onnx", "bad_name"),
        ("digits//model.onnx", "bad_place"),
        ("../model.onnx", "bad_name"),
        ("digits/readme.txt", "unknown_form"),
        ("digits/", "bad_place"),
    ],
)
def test_a_drop_at_a_wrong_place_is_refused_with_a_code(blob: str, code: str) -> None:
    world = World()
    world.blobs.put(BlobContainer.INCOMING, blob, b"one", {})
    drop = world.registration.register(blob)
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
    assert world.stable == 1
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
    assert "worse than stable is proven" in endpoint.rollout.reason
    assert published(world).candidate is None
    assert world.stable == 1
    assert published(world) == world.endpoint().plan()
    kinds = [event.kind for event in world.audit.events(f"endpoint:{MODEL}")]
    assert kinds.count("check_failed") == 1
    assert kinds[-1] == "rollout_rolled_back"


def test_a_rolled_back_version_does_not_start_again_by_itself() -> None:
    world = World()
    world.put_policy(QUICK)
    world.pod.errors = {2: 0.2}
    two_versions(world, copies=3)
    world.run(seconds=300)
    assert [r.state for r in world.rollouts.rollouts(ENDPOINT)] == [
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
    assert world.stable == 3
    assert [r.candidate.version for r in world.rollouts.rollouts(ENDPOINT)] == [1, 2, 3]


def test_ticks_that_come_many_times_neither_hasten_nor_multiply_the_checks() -> None:
    ends = []
    for copies in (1, 7):
        world = World()
        world.pod.errors = {2: 0.2}
        two_versions(world, copies=copies)
        (rollout,) = [r for r in world.rollouts.rollouts(ENDPOINT) if r.candidate.version == 2]
        kinds = [event.kind for event in world.audit.events(f"endpoint:{MODEL}")]
        ends.append((rollout.ended_at, rollout.tick, kinds.count("check_failed")))
    assert ends[0] == ends[1]


def test_a_change_that_another_writer_came_before_is_decided_again_and_loses_nothing() -> None:
    world = World()
    world.put_policy(QUICK)
    strict = QUICK.model_copy(update={"validation": ValidationPolicy(accuracy=0.99)})
    world.documents.other_writers = [lambda: None, lambda: world.put_policy(strict)] * 6
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=60)
    assert world.registry.model(MODEL).policy == strict
    assert [v.version for v in world.registry.versions(MODEL).items] == [1]
    assert world.endpoint().stable is not None
    assert world.audit.verify().verified


def test_a_rollout_that_another_host_aborts_between_a_ticks_reading_and_writing_stays_aborted() -> None:
    world = World()
    world.put_policy(QUICK)
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=20)
    world.event(world.drop("two", name="two.onnx"))
    world.run(seconds=15)
    abort = RolloutCommand(
        command=CommandKind.ABORT, command_id="abort", endpoint=MODEL, requested_by="somebody", reason="enough"
    )
    (tick,) = [message for message in world.queues.messages if message[1] == Queue.ROLLOUT_TICKS]
    world.clock.pass_s(60)
    world.documents.other_writers = [lambda: world.rollouts.handle(abort)]
    world.handle(tick[1], tick[2])
    endpoint = world.endpoint()
    assert endpoint.rollout is not None
    assert (endpoint.rollout.state, endpoint.rollout.reason) == (RolloutState.ABORTED, "enough")
    assert published(world) == endpoint.plan()


def rollouts_of(world: World, version: int) -> list[tuple[str, str]]:
    return [(r.requested_by, r.state) for r in world.rollouts.rollouts(ENDPOINT) if r.candidate.version == version]


def by_hand(world: World, command: CommandKind, command_id: str, version: int | None = None) -> None:
    world.rollouts.handle(
        RolloutCommand(
            command=command,
            command_id=command_id,
            endpoint=MODEL,
            version=version,
            requested_by="ann",
            reason="by hand",
        )
    )


@pytest.mark.parametrize("end", [CommandKind.ABORT, CommandKind.PROMOTE, None])
def test_a_version_that_was_started_by_hand_is_not_started_again_by_policy(end: CommandKind | None) -> None:
    world = World()
    world.put_policy(QUICK)
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=30)
    world.queues.loses = lambda: True
    world.registration.register(world.drop("two", name="two.onnx"))
    world.validation.validate(ValidateVersion(model=MODEL, version=2))
    world.queues.loses = lambda: False
    by_hand(world, CommandKind.START, "start-by-hand", 2)
    world.handle(Queue.ROLLOUT_COMMANDS, automatic_start(2))
    if end is None:
        world.pod.errors = {2: 0.5}
    world.run(seconds=15)
    if end:
        by_hand(world, end, "end-by-hand")
    world.run(seconds=600)
    expected = {CommandKind.ABORT: "aborted", CommandKind.PROMOTE: "promoted", None: "rolled_back"}[end]
    assert rollouts_of(world, 2) == [("ann", expected)]
    assert world.endpoint().queued_version is None
    assert not world.registry.version(MODEL, VersionNumber(2)).rollout_pending


def automatic_start(version: int) -> str:
    return RolloutCommand(
        command=CommandKind.START,
        command_id=automatic_command_id(MODEL, version),
        endpoint=MODEL,
        version=version,
        requested_by="policy",
    ).model_dump_json()


def test_a_window_too_large_to_read_is_left_out_and_the_candidate_still_taken_back() -> None:
    world = World()
    world.put_policy(QUICK)
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=30)
    world.event(world.drop("two", name="two.onnx"))
    world.run(seconds=10)
    world.pod.errors = {2: 1.0}
    name = window_blob_name(MODEL, world.clock.now(), "broken", 0)
    world.blobs.put(BlobContainer.TELEMETRY, name, b"x" * (MAX_WINDOW_BYTES + 1), {})
    world.run(seconds=120)
    assert rollouts_of(world, 2) == [("policy", "rolled_back")]


def test_the_sweep_asks_once_for_what_waits_and_again_only_after_its_grace() -> None:
    world = World()
    world.put_policy(QUICK)
    world.queues.loses = lambda: True
    world.registration.register(world.drop("one"))
    world.validation.validate(ValidateVersion(model=MODEL, version=1))
    world.queues.loses = lambda: False
    asked = []
    for _ in range(6):
        world.clock.pass_s(GRACE.total_seconds() / 2)
        asked.append(world.sweep.sweep().starts)
    assert asked == [0, 0, 1, 0, 0, 1]
