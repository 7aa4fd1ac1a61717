"""A prediction's lineage: every id that a server could have given leads to what served, and no other id does."""

import copy
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.core.errors import ConflictError, IntegrityError, NotFoundError
from shared.core.ids import EndpointName, ModelName, VersionNumber
from shared.core.verdict import Outcome
from shared.lineage.documents import Lineage
from shared.registry.commands import Approve
from shared.registry.documents import VersionState
from shared.registry.policy import Policy
from shared.rollout.machine import RolloutState
from shared.routing.plan import Role, RoutePlan, plan_blob_name
from shared.routing.prediction import PredictionId, Reason
from shared.store.ports import BlobContainer, Container, Stored
from tests.world.copies import copy_of
from tests.world.fakes import Fuse, Killed
from tests.world.test_job import QUICK
from tests.world.world import ENDPOINT, MODEL, World

STREAM = f"endpoint:{ENDPOINT}"
APPROVED = Policy(rollout=QUICK.rollout.model_copy(update={"approvals": 1}))

type Plans = dict[int, tuple[RoutePlan, datetime]]


def published(world: World) -> RoutePlan:
    """The plan that the servers see."""
    return RoutePlan.model_validate_json(world.blobs.held[BlobContainer.ROUTES, plan_blob_name(ENDPOINT)].data)


def served(world: World, seconds: int, plans: Plans) -> None:
    """Let the world go on, and keep each plan that it serves with a time of its service."""
    for _ in range(seconds):
        world.run(seconds=1)
        plan = published(world)
        plans.setdefault(plan.generation, (plan, world.clock.now()))


def live() -> tuple[World, Plans]:
    """One version that is promoted, one that takes over in stages, and one that is taken back."""
    world = World()
    plans: Plans = {}
    world.put_policy(APPROVED)
    world.clock.pass_s(1)
    for number, name in enumerate(("by:ann one", "by:ann two", "by:ann three"), start=1):
        world.event(world.drop(name, name=f"{number}.onnx"))
        while world.step():
            pass
        approve = Approve(
            model=MODEL, version=VersionNumber(number), by=f"bob{number}", reason="fit", command_id=f"a{number}"
        )
        world.registry.approve(approve)
        world.pod.errors = {3: 0.5}
        served(world, 80, plans)
    return world, plans


@pytest.fixture(scope="module")
def lived() -> tuple[World, Plans]:
    world, plans = live()
    assert [rollout.state for rollout in world.rollouts.rollouts(ENDPOINT)] == [
        RolloutState.PROMOTED,
        RolloutState.PROMOTED,
        RolloutState.ROLLED_BACK,
    ]
    assert sorted(plans) == list(range(1, world.endpoint().generation + 1))
    return world, plans


def claim(version: int, generation: int, at: datetime, **other: Any) -> PredictionId:
    fields: dict[str, Any] = {"role": Role.STABLE, "reason": Reason.ASSIGNED, "pod": "k3qx7m2p", "count": 7} | other
    return PredictionId(
        endpoint=ENDPOINT, version=version, generation=generation, at=at.replace(microsecond=0), **fields
    )


def test_every_id_that_a_server_could_have_given_leads_to_what_served(lived: tuple[World, Plans]) -> None:
    world, plans = lived
    looked_at = 0
    for generation, (plan, at) in plans.items():
        for route in plan.routes:
            reason = Reason.ASSIGNED if route.weight_bp else Reason.PINNED
            found = world.lineage.lineage(claim(route.version, generation, at, role=route.role, reason=reason))
            assert found.version.artifact_digest == route.artifact_digest
            assert [(r.version, r.role, r.weight_bp) for r in found.generation.routes] == [
                (r.version, r.role, r.weight_bp) for r in plan.routes
            ]
            assert found.generation.generation == generation
            assert found.generation.published_at <= at
            assert found.generation.superseded_at is None or found.generation.superseded_at >= at
            assert found.audit.verified, found.audit.problems
            assert (found.promotion is not None) is (route.role is Role.STABLE)
            looked_at += 1
    assert looked_at >= 12


def candidate_in_its_first_stage(plans: Plans) -> tuple[int, datetime]:
    for generation, (plan, at) in plans.items():
        if plan.candidate and plan.candidate.version == 2 and plan.candidate.weight_bp == 1_000:
            return generation, at
    raise AssertionError(plans)


def test_a_candidate_s_prediction_tells_its_decision_its_approval_its_data_and_its_audit(
    lived: tuple[World, Plans],
) -> None:
    world, plans = lived
    generation, at = candidate_in_its_first_stage(plans)
    found = world.lineage.lineage(claim(2, generation, at, role=Role.CANDIDATE))
    assert found.generation.decision.kind == "stage_started"
    assert "1 of 1 pods that report have version 2 ready" in found.generation.decision.reason
    assert (found.generation.rollout.stage, found.generation.rollout.weight_bp) == (0, 1_000)
    assert (found.generation.rollout.version, found.generation.rollout.stable) == (2, 1)
    assert found.generation.rollout.state is RolloutState.PROMOTED
    assert [(approval.by, approval.reason) for approval in found.version.approvals] == [("bob2", "fit")]
    assert found.version.manifest.author == "ann"
    assert found.version.drop == f"{MODEL}/2.onnx"
    assert found.version.validation is not None
    assert found.version.validation.outcome is Outcome.PASS
    assert found.version.validation.report == f"/api/models/{MODEL}/versions/2/report"
    assert found.aliases == ["challenger"]
    referred = [(reference.stream, reference.kind) for reference in found.audit.references]
    assert referred == [
        (f"version:{MODEL}:2", "version_registered"),
        (f"version:{MODEL}:2", "version_validated"),
        (f"version:{MODEL}:2", "version_approved"),
        (STREAM, "stage_started"),
    ]
    for reference in found.audit.references:
        event = next(e for e in world.audit.events(reference.stream) if e.seq == reference.seq)
        assert (event.kind, event.at) == (reference.kind, reference.at)


def test_a_stable_version_s_prediction_tells_the_verdicts_that_promoted_it_also_under_a_later_rollout(
    lived: tuple[World, Plans],
) -> None:
    world, plans = lived
    generation, at = next((g, at) for g, (plan, at) in plans.items() if plan.candidate and plan.candidate.version == 3)
    found = world.lineage.lineage(claim(2, generation, at))
    assert found.generation.rollout.version == 3
    assert found.promotion is not None
    assert found.promotion.kind == "rollout_promoted"
    assert found.promotion.reason.startswith("all gates pass: ")
    assert {verdict.outcome for verdict in found.promotion.verdicts if not verdict.advisory} == {Outcome.PASS}
    assert found.aliases == ["champion", "production"]


def test_what_took_a_candidate_back_is_told_of_the_generation_after_it(lived: tuple[World, Plans]) -> None:
    world, plans = lived
    last = max(plans)
    found = world.lineage.lineage(claim(2, last, plans[last][1]))
    assert found.generation.decision.kind == "rollout_rolled_back"
    assert "worse than stable is proven" in found.generation.decision.reason
    assert Outcome.FAIL in {verdict.outcome for verdict in found.generation.decision.verdicts}
    assert found.generation.superseded_at is None


def test_a_version_that_is_archived_since_is_told_of_as_before(lived: tuple[World, Plans]) -> None:
    world, plans = copy_of(lived[0]), lived[1]
    world.rollouts.archive(ModelName(MODEL), VersionNumber(3), by="test", reason="old")
    generation = next(g for g, (plan, _) in plans.items() if plan.candidate and plan.candidate.version == 3)
    id_ = claim(3, generation, plans[generation][1], role=Role.CANDIDATE, reason=Reason.PINNED)
    found = world.lineage.lineage(id_)
    assert found.version.state is VersionState.ARCHIVED
    assert "version_archived" in {reference.kind for reference in found.audit.references}


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"generation": 99}, NotFoundError, "generation 99 of endpoint digits does not exist: the latest is"),
        ({"version": 9}, NotFoundError, "version 9 of model 'digits' does not exist"),
        ({"endpoint": EndpointName("nothing")}, NotFoundError, "endpoint nothing does not exist"),
        (
            {"version": 3},
            ConflictError,
            "version 3 did not serve as candidate under generation .* which held version 1",
        ),
        ({"role": Role.STABLE}, ConflictError, "version 2 did not serve as stable"),
        ({"role": Role.SHADOW}, ConflictError, "version 2 did not serve as shadow"),
        ({"reason": Reason.FALLBACK}, ConflictError, "stable alone answers for others"),
    ],
)
def test_an_id_that_the_records_do_not_bear_out_is_refused_with_what_they_say(
    lived: tuple[World, Plans], change: dict[str, Any], error: type[Exception], reason: str
) -> None:
    world, plans = lived
    generation, at = candidate_in_its_first_stage(plans)
    asked = replace(claim(2, generation, at, role=Role.CANDIDATE), **change)
    with pytest.raises(error, match=reason):
        world.lineage.lineage(asked)


def test_a_prediction_before_its_plan_or_in_the_future_is_refused(lived: tuple[World, Plans]) -> None:
    world, plans = lived
    generation, at = candidate_in_its_first_stage(plans)
    with pytest.raises(ConflictError, match="and it was published at"):
        world.lineage.lineage(claim(2, generation, at - timedelta(hours=1), role=Role.CANDIDATE))
    with pytest.raises(ConflictError, match="still to come"):
        world.lineage.lineage(claim(2, generation, world.clock.now() + timedelta(hours=1), role=Role.CANDIDATE))
    late = world.clock.now() - timedelta(seconds=1)
    assert world.lineage.lineage(claim(2, generation, late, role=Role.CANDIDATE)).version.version == 2


def test_an_id_tells_whole_seconds_and_the_step_that_made_its_plan_counts_as_before_it() -> None:
    world = World()
    world.clock.pass_s(0.5)
    world.event(world.drop("one"))
    world.run(seconds=60)
    (promotion,) = [event for event in world.audit.events(STREAM) if event.kind == "rollout_promoted"]
    asked = claim(1, promotion.data["generation"], promotion.at)
    assert asked.at < promotion.at
    assert world.lineage.lineage(asked).aliases == ["champion", "production"]


def edited(world: World, container: Container, partition: str, document_id: str, **fields: Any) -> None:
    """Change a document behind Slipway's back."""
    key = (container, partition, document_id)
    body = copy.deepcopy(world.documents.held[key].body)
    body.update(fields)
    world.documents.held[key] = Stored(body=body, etag="forged")


def decision_event(world: World, generation: int) -> tuple[str, dict[str, Any]]:
    for (container, partition, document_id), stored in world.documents.held.items():
        if container is Container.AUDIT and partition == STREAM and stored.body["data"].get("generation") == generation:
            return document_id, stored.body
    raise AssertionError(generation)


def candidate_lineage(world: World, plans: Plans) -> Lineage:
    generation, at = candidate_in_its_first_stage(plans)
    return world.lineage.lineage(claim(2, generation, at, role=Role.CANDIDATE))


def test_a_decision_that_was_rewritten_is_given_as_one_that_does_not_verify(lived: tuple[World, Plans]) -> None:
    world, plans = copy_of(lived[0]), lived[1]
    generation, _ = candidate_in_its_first_stage(plans)
    event_id, body = decision_event(world, generation)
    edited(world, Container.AUDIT, STREAM, event_id, data=body["data"] | {"reason": "because I say so"})
    found = candidate_lineage(world, plans)
    assert found.generation.decision.reason == "because I say so"
    assert not found.audit.verified
    assert "its content does not give its hash" in found.audit.problems[0].problem


def test_a_version_whose_document_was_rewritten_is_given_away_by_its_audit(lived: tuple[World, Plans]) -> None:
    world, plans = copy_of(lived[0]), lived[1]
    edited(world, Container.MODELS, MODEL, "version-000000002", artifact_digest="f" * 64, signed_by="mallory")
    found = candidate_lineage(world, plans)
    told = [problem.problem for problem in found.audit.problems]
    assert not found.audit.verified
    assert any("registered with the artifact_digest" in problem for problem in told)
    assert any("registered with the signed_by ''" in problem for problem in told)
    assert any("the plan named the artifact" in problem for problem in told)


def test_a_generation_whose_event_is_gone_is_an_error_that_says_where_to_look(lived: tuple[World, Plans]) -> None:
    world, plans = copy_of(lived[0]), lived[1]
    generation, _ = candidate_in_its_first_stage(plans)
    event_id, _ = decision_event(world, generation)
    del world.documents.held[Container.AUDIT, STREAM, event_id]
    with pytest.raises(IntegrityError, match=f"tells nothing of it: `slipway audit verify {STREAM}`"):
        candidate_lineage(world, plans)


@pytest.mark.parametrize("data", [{"routes": [{"version": "two"}]}, {"rollout_id": None}, {"verdicts": [{}]}])
def test_an_event_that_is_not_what_was_written_is_an_error_or_does_not_verify(
    lived: tuple[World, Plans], data: dict[str, Any]
) -> None:
    world, plans = copy_of(lived[0]), lived[1]
    generation, _ = candidate_in_its_first_stage(plans)
    event_id, body = decision_event(world, generation)
    edited(world, Container.AUDIT, STREAM, event_id, data=body["data"] | data)
    with pytest.raises((IntegrityError, NotFoundError)):
        candidate_lineage(world, plans)


def test_an_event_of_an_earlier_slipway_without_routes_still_gives_its_decision(lived: tuple[World, Plans]) -> None:
    world, plans = copy_of(lived[0]), lived[1]
    generation, _ = candidate_in_its_first_stage(plans)
    event_id, body = decision_event(world, generation)
    edited(world, Container.AUDIT, STREAM, event_id, data={k: v for k, v in body["data"].items() if k != "routes"})
    found = candidate_lineage(world, plans)
    assert found.generation.routes == []
    assert found.generation.decision.kind == "stage_started"


def test_a_generation_is_told_of_as_soon_as_a_server_can_serve_it_whatever_died_meanwhile() -> None:
    prepared = World()
    prepared.put_policy(QUICK)
    prepared.event(prepared.drop("one", name="one.onnx"))
    prepared.run(seconds=30)
    prepared.event(prepared.drop("two", name="two.onnx"))
    seen = 0
    for at in range(1, 400):
        world = copy_of(prepared)
        if not died(world, at):
            break
        plan = published(world)
        if plan.candidate is None:
            continue
        pinned = claim(2, plan.generation, world.clock.now(), role=Role.CANDIDATE, reason=Reason.PINNED)
        found = world.lineage.lineage(pinned)
        assert found.generation.decision.kind == "rollout_started"
        assert found.audit.verified, found.audit.problems
        seen += 1
    assert seen >= 3


def died(world: World, at: int) -> bool:
    """Deliver what is due up to the port call at which the process dies. False where it lives to the end."""
    fuse = Fuse(at=at)
    world.documents.fuse = world.blobs.fuse = world.queues.fuse = fuse
    while world.queues.messages and world.queues.messages[0][0] <= world.clock.now():
        _, queue, body = world.queues.messages.pop(0)
        try:
            world.handle(queue, body)
        except Killed:
            return True
    return False
