"""Freeze windows and spent error budgets: what they keep back, what goes on, and overrides on record."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.budgets.service import BudgetService
from shared.budgets.sums import BEHIND, SUMS_ID, RequestSums
from shared.core.errors import ConflictError, InvalidInputError
from shared.core.ids import ModelName
from shared.core.messages import CommandKind, RolloutCommand
from shared.registry.policy import Policy
from shared.registry.rollout_policy import ErrorBudget, FreezeWindow, RolloutPolicy, Stage
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.standing import standing
from shared.store.outbox import Outbox
from shared.store.ports import Container
from shared.store.repository import Repository
from tests.world.fakes import Fuse, Killed
from tests.world.world import MODEL, Pod, World

STAGES = (Stage(weight_bp=1_000, duration_s=5), Stage(weight_bp=5_000, duration_s=5))
FREEZE = FreezeWindow(
    name="launch", since=datetime(2026, 11, 1, tzinfo=UTC), until=datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
)


def policy(**rollout: Any) -> Policy:
    given = {"stages": STAGES, "tick_s": 5, "watch_s": 20, "automatic": False}
    return Policy(rollout=RolloutPolicy.model_validate(given | rollout))


def serving(**rollout: Any) -> World:
    """A world whose version 1 serves, and whose version 2 may be rolled out."""
    world = World()
    world.put_policy(policy(automatic=True))
    world.event(world.drop("one takes:x", name="one.onnx"))
    world.run(seconds=12)
    world.put_policy(policy(**rollout))
    world.event(world.drop("two takes:x", name="two.onnx"))
    world.run(seconds=3)
    assert world.stable == 1
    return world


def rolling(**rollout: Any) -> World:
    """A world in which version 2 has its first stage's share."""
    world = serving()
    command(world, CommandKind.START, version=2)
    while latest(world).stage_started_at is None or latest(world).state is not RolloutState.PROGRESSING:
        world.run(seconds=1)
    world.put_policy(policy(**rollout))
    return world


def command(world: World, kind: CommandKind, **given: Any) -> Rollout | None:
    command_id = f"{kind} {world.clock.now()} {given}"
    asked = {"command": kind, "command_id": command_id, "endpoint": MODEL, "requested_by": "ann"}
    return world.rollouts.handle(RolloutCommand.model_validate(asked | given))


def latest(world: World) -> Rollout:
    rollout = world.endpoint().rollout
    assert rollout is not None
    return rollout


def overrides(world: World) -> list[dict[str, Any]]:
    events = world.audit.events(f"endpoint:{MODEL}")
    return [event.data for event in events if event.kind == "block_overridden"]


def test_in_a_freeze_no_rollout_starts_and_one_by_policy_starts_after_it() -> None:
    world = serving(freezes=(FREEZE,), automatic=True)
    world.run(seconds=130)
    assert latest(world).candidate.version == 1
    said = "freeze window launch is on: wait, or give the command with override and a reason"
    with pytest.raises(ConflictError, match=said):
        command(world, CommandKind.START, version=2)
    world.clock.time = FREEZE.until or world.clock.time
    world.run(seconds=130)
    assert latest(world).candidate.version == 2
    assert overrides(world) == []


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (CommandKind.PROMOTE, {}),
        (CommandKind.SKIP, {}),
        (CommandKind.SET_WEIGHT, {"weight_bp": 2_000}),
    ],
)
def test_in_a_freeze_a_stage_lasts_and_no_command_gives_more_traffic_but_by_override_on_record(
    kind: CommandKind, given: dict[str, Any]
) -> None:
    world = rolling(freezes=(FREEZE,))
    before = latest(world).weight_bp
    world.run(seconds=60)
    assert (latest(world).state, latest(world).weight_bp) == (RolloutState.PROGRESSING, before)
    assert latest(world).reason == "all gates pass; freeze window launch is on"
    assert latest(world).blocked == "freeze window launch is on"
    assert standing(world.endpoint(), latest(world), world.clock.now()).stage_limit_s is None
    held = dict(world.documents.held)
    with pytest.raises(ConflictError, match="freeze window launch is on"):
        command(world, kind, **given)
    with pytest.raises(InvalidInputError, match="an override needs a reason"):
        command(world, kind, override=True, reason=" ", **given)
    assert world.documents.held == held
    command(world, kind, override=True, reason="a fix", **given)
    assert latest(world).weight_bp > before
    (told,) = overrides(world)
    assert (told["by"], told["reason"], told["command"], told["blocked"], told["version"]) == (
        "ann",
        "a fix",
        kind,
        "freeze window launch is on",
        2,
    )
    assert not latest(world).overridden
    assert world.audit.verify().verified


def test_an_override_of_one_command_does_nothing_for_the_next() -> None:
    world = rolling(freezes=(FREEZE,))
    command(world, CommandKind.SET_WEIGHT, weight_bp=2_000, override=True, reason="a fix")
    with pytest.raises(ConflictError, match="freeze window launch is on"):
        command(world, CommandKind.SET_WEIGHT, weight_bp=2_001)
    world.run(seconds=60)
    assert latest(world).weight_bp == 2_000


def test_in_a_freeze_a_candidate_is_still_taken_back_and_its_share_lowered() -> None:
    world = rolling(freezes=(FREEZE,))
    command(world, CommandKind.SET_WEIGHT, weight_bp=500)
    assert latest(world).weight_bp == 500
    world.pod.errors[2] = 1.0
    world.run(seconds=60)
    assert latest(world).state is RolloutState.ROLLED_BACK
    for kind, state in ((CommandKind.ABORT, "aborted"), (CommandKind.ROLLBACK, "rolled_back")):
        world = rolling(freezes=(FREEZE,))
        command(world, kind)
        assert latest(world).state == state
    assert overrides(world) == []


def test_in_a_freeze_the_watch_period_goes_on_to_its_end() -> None:
    world = rolling()
    command(world, CommandKind.PROMOTE)
    assert latest(world).state is RolloutState.WATCHING
    world.put_policy(policy(freezes=(FREEZE,)))
    world.run(seconds=60)
    assert (latest(world).state, world.stable) == (RolloutState.PROMOTED, 2)


@pytest.mark.parametrize("freezes", [(FREEZE,), ()])
def test_a_rollout_that_is_started_with_an_override_goes_through_every_block(freezes: tuple[FreezeWindow, ...]) -> None:
    world = serving(freezes=freezes)
    with pytest.raises(InvalidInputError, match="an override needs a reason"):
        command(world, CommandKind.START, version=2, override=True)
    command(world, CommandKind.START, version=2, override=True, reason="a fix")
    assert latest(world).overridden
    world.put_policy(policy(freezes=(FREEZE,)))
    world.run(seconds=90)
    assert (latest(world).state, world.stable) == (RolloutState.PROMOTED, 2)
    (told,) = overrides(world)
    assert (told["by"], told["reason"], told["command"]) == ("ann", "a fix", "start")
    assert told["blocked"] == ("freeze window launch is on" if freezes else "")


def test_a_freeze_is_lifted_by_policy_only_by_somebody_with_a_reason_on_record() -> None:
    world = rolling(freezes=(FREEZE,))
    held = dict(world.documents.held)
    for by, reason in (("api", "a fix"), ("ann", "")):
        with pytest.raises(InvalidInputError, match="takes away or loosens freeze window launch, at once: say who"):
            world.registry.put_policy(ModelName(MODEL), policy(), by=by, reason=reason)
    assert world.documents.held == held
    world.registry.put_policy(ModelName(MODEL), policy(), by="ann", reason="a fix")
    told = [event.data for event in world.audit.events(f"model:{MODEL}") if event.kind == "policy_set"][-1]
    assert (told["by"], told["reason"]) == ("ann", "a fix")
    assert world.registry.policies(MODEL).items[-1]["reason"] == "a fix"


@pytest.mark.parametrize("given", [{"override": True}, {"force": True}])
@pytest.mark.parametrize("by", ["", " ", "api"])
def test_a_start_that_goes_over_something_needs_a_name(given: dict[str, Any], by: str) -> None:
    world = serving(freezes=(FREEZE,))
    held = dict(world.documents.held)
    with pytest.raises(InvalidInputError, match="a start needs the name of who gives it"):
        command(world, CommandKind.START, version=2, reason="a fix", requested_by=by, **given)
    assert world.documents.held == held


BUDGET = ErrorBudget(objective=0.99, hours=2)
SPENT = r"the error budget is spent: \d+ of \d+ requests failed in the last 2 h \(\d\.\d+%\), and 1.000% may"


def test_a_spent_error_budget_blocks_until_enough_hours_have_passed() -> None:
    world = serving(error_budget=BUDGET)
    report(world, errors=0.005)
    command(world, CommandKind.START, version=2)
    command(world, CommandKind.ABORT)
    # The errors of every version count.
    report(world, errors=0.05)
    with pytest.raises(ConflictError, match=SPENT):
        command(world, CommandKind.START, version=2)
    command(world, CommandKind.START, version=2, override=True, reason="the fix")
    assert "the error budget is spent" in overrides(world)[0]["blocked"]
    command(world, CommandKind.ABORT)
    world.clock.pass_s(3_600)
    report(world)
    with pytest.raises(ConflictError, match=SPENT):
        command(world, CommandKind.START, version=2)
    world.clock.pass_s(7_200)
    report(world)
    command(world, CommandKind.START, version=2)
    assert latest(world).state is RolloutState.LOADING


def report(world: World, *, errors: float = 0.0) -> None:
    """Have the pod report ten windows, and have them counted."""
    world.pod.errors = {1: errors, 2: errors}
    for _ in range(10):
        world.pod.report(world.blobs, world.clock, MODEL)
        world.clock.pass_s(1)
    world.budgets.count()


def sums(world: World) -> RequestSums:
    return RequestSums.model_validate(world.documents.held[Container.ENDPOINTS, MODEL, SUMS_ID].body)


def test_windows_are_counted_once_by_several_counters_killed_anywhere() -> None:
    at, died = 0, True
    while died:
        at += 1
        world = serving(error_budget=BUDGET)
        report(world)
        before = sums(world).within(2, world.clock.now()).requests
        for _ in range(3):
            world.pod.report(world.blobs, world.clock, MODEL)
        world.documents.fuse = world.blobs.fuse = Fuse(at=at)
        died = False
        try:
            world.budgets.count()
        except Killed:
            died = True
        world.documents.fuse = world.blobs.fuse = Fuse()
        # Another counts just before this one saves.
        world.documents.other_writers = [world.budgets.count]
        world.pod.report(world.blobs, world.clock, MODEL)
        world.budgets.count()
        world.budgets.count()
        assert sums(world).within(2, world.clock.now()).requests == before + 4_000
    assert at > 4


def backlog(world: World, *, pods: int, errors: float) -> None:
    """Have many pods report that nobody counted meanwhile."""
    for number in range(pods):
        pod = Pod(name=f"pod-of-many-{number}", errors={1: errors, 2: errors})
        for _ in range(10):
            pod.report(world.blobs, world.clock, MODEL)
            world.clock.pass_s(1)


def counter(world: World, *, portion: int, ticks: list[float]) -> BudgetService:
    """A counter whose monotonic clock is as far on at each look as `ticks` says, and then stands."""
    left = iter(ticks)
    outbox = Outbox(world.documents, world.blobs, world.queues, world.clock)
    return BudgetService(
        endpoints=Repository(Endpoint, world.documents, outbox),
        documents=world.documents,
        blobs=world.blobs,
        clock=world.clock,
        portion=portion,
        monotonic=lambda: next(left, ticks[-1]),
    )


def test_a_call_counts_more_than_a_portion_as_long_as_it_has_time() -> None:
    world = serving(error_budget=BUDGET)
    report(world)
    before = sums(world).within(2, world.clock.now()).requests
    backlog(world, pods=8, errors=0.05)
    counter(world, portion=7, ticks=[0.0]).count()
    assert sums(world).within(2, world.clock.now()).requests - before == 80 * 1_000
    with pytest.raises(ConflictError, match=SPENT):
        command(world, CommandKind.START, version=2)


def test_sums_that_are_behind_block_and_say_so_until_they_are_whole() -> None:
    world = serving(error_budget=BUDGET)
    with pytest.raises(ConflictError, match=r"cannot be told: .* they never were yet"):
        command(world, CommandKind.START, version=2)
    report(world)
    backlog(world, pods=3, errors=0.0)
    world.clock.pass_s(BEHIND.total_seconds())
    before = sums(world)
    # A call without time counts one portion.
    counter(world, portion=7, ticks=[0.0, 0.0, 1e9]).count()
    assert sums(world).within(2, world.clock.now()).requests - before.within(2, world.clock.now()).requests == 7_000
    with pytest.raises(ConflictError, match=r"cannot be told: .* they were last at .*: wait, or give the command with"):
        command(world, CommandKind.START, version=2)
    world.budgets.count()
    command(world, CommandKind.START, version=2)
    assert latest(world).state is RolloutState.LOADING


def test_a_budget_is_counted_from_when_it_was_first_seen_however_much_was_before() -> None:
    world = serving(error_budget=BUDGET)
    backlog(world, pods=3, errors=0.5)
    world.clock.pass_s(5)
    # A call without time, which reads one window.
    counter(world, portion=1, ticks=[0.0, 0.0, 1e9]).count()
    assert sums(world).begun_at == world.clock.now()
    command(world, CommandKind.START, version=2)
    assert latest(world).state is RolloutState.LOADING
    report(world, errors=0.05)
    command(world, CommandKind.ABORT)
    with pytest.raises(ConflictError, match=SPENT + ", counted since 2026-11-21 08:"):
        command(world, CommandKind.START, version=2)


def test_sums_that_never_came_to_be_whole_are_counted_from_now_on() -> None:
    world = serving(error_budget=BUDGET)
    backlog(world, pods=1, errors=0.0)
    world.clock.pass_s(5)
    before = RequestSums(endpoint=MODEL, since=world.clock.now() - timedelta(hours=2))
    world.documents.create(Container.ENDPOINTS, before.model_dump(mode="json", exclude={"begun_at"}))
    counter(world, portion=1, ticks=[0.0, 0.0, 1e9]).count()
    command(world, CommandKind.START, version=2)
    assert latest(world).state is RolloutState.LOADING


def damage_sums(world: World, endpoint: str = MODEL) -> None:
    """Have the stored sums of an endpoint be what nobody can read."""
    body = RequestSums(endpoint=endpoint, since=world.clock.now()).model_dump(mode="json") | {"hours": "lost"}
    stored = world.documents.get(Container.ENDPOINTS, endpoint, SUMS_ID)
    if stored:
        world.documents.replace(Container.ENDPOINTS, body, etag=stored.etag)
    else:
        world.documents.create(Container.ENDPOINTS, body)


UNREADABLE = "what blocks the endpoint cannot be read: the stored RequestSums is damaged at hours: "


def test_sums_that_cannot_be_read_block_and_keep_nobody_from_taking_a_candidate_back() -> None:
    back: tuple[tuple[CommandKind, dict[str, int], RolloutState], ...] = (
        (CommandKind.ABORT, {}, RolloutState.ABORTED),
        (CommandKind.ROLLBACK, {}, RolloutState.ROLLED_BACK),
        (CommandKind.SET_WEIGHT, {"weight_bp": 500}, RolloutState.PROGRESSING),
        (CommandKind.PAUSE, {}, RolloutState.PAUSED),
    )
    for kind, given, state in back:
        world = rolling(error_budget=BUDGET)
        damage_sums(world)
        command(world, kind, **given)
        assert latest(world).state is state
    world = rolling(error_budget=BUDGET)
    damage_sums(world)
    more: tuple[tuple[CommandKind, dict[str, int]], ...] = (
        (CommandKind.PROMOTE, {}),
        (CommandKind.SKIP, {}),
        (CommandKind.SET_WEIGHT, {"weight_bp": 2_000}),
    )
    for kind, given in more:
        with pytest.raises(ConflictError, match=UNREADABLE):
            command(world, kind, **given)
    world.run(seconds=40)
    assert (latest(world).state, latest(world).weight_bp) == (RolloutState.PROGRESSING, 1_000)
    assert latest(world).blocked.startswith(UNREADABLE)
    world.pod.errors[2] = 1.0
    world.run(seconds=30)
    assert latest(world).state is RolloutState.ROLLED_BACK
    world = serving(error_budget=BUDGET)
    damage_sums(world)
    with pytest.raises(ConflictError, match=UNREADABLE):
        command(world, CommandKind.START, version=2)
    command(world, CommandKind.START, version=2, override=True, reason="a fix")
    assert latest(world).state is RolloutState.LOADING


def test_an_endpoint_that_cannot_be_counted_keeps_no_other_from_being_so(caplog: pytest.LogCaptureFixture) -> None:
    world = serving(error_budget=BUDGET)
    others = Repository(Endpoint, world.documents, Outbox(world.documents, world.blobs, world.queues, world.clock))
    for name in ("a-before", "z-after"):
        world.registry.put_policy(ModelName(name), policy(error_budget=BUDGET), by="ann")
        others.find_or_create(Endpoint(endpoint=name))
    damage_sums(world)
    world.budgets.count()
    assert all(world.documents.get(Container.ENDPOINTS, name, SUMS_ID) for name in ("a-before", "z-after"))
    told = [record.getMessage() for record in caplog.records]
    assert f"the requests of endpoint {MODEL} are not counted" in told


def test_the_first_version_of_an_endpoint_needs_no_sums() -> None:
    world = World()
    world.put_policy(policy(automatic=True, error_budget=BUDGET))
    world.event(world.drop("one takes:x", name="one.onnx"))
    world.run(seconds=12)
    assert world.stable == 1


def test_an_endpoint_without_an_error_budget_is_counted_all_the_same_for_one_to_come() -> None:
    world = serving()
    report(world)
    assert sums(world).begun_at is not None
