"""Approvals of stages and of the switch: who may, by signed link, once, and through any kill."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest

from shared.approvals.asked import MadeLink
from shared.approvals.links import LinkAlteredError, LinkExpiredError, read_link, sign_link
from shared.core.errors import ConflictError, InvalidInputError, NotFoundError, SlipwayError
from shared.core.messages import CommandKind, RolloutCommand
from shared.registry.policy import Policy
from shared.registry.rollout_policy import FreezeWindow, RolloutPolicy, Stage, Weekday
from shared.rollout.approvers import LinkUsedError, NotAnApproverError, OtherStageError
from shared.rollout.documents import Rollout
from shared.rollout.machine import RolloutState
from tests.world.fakes import Fuse, Killed
from tests.world.twins import twin
from tests.world.world import ENDPOINT, MODEL, World

KEY = b"k" * 32
STAGES = (Stage(weight_bp=1_000, duration_s=5), Stage(weight_bp=5_000, duration_s=5, approval=True))


def policy(**rollout: Any) -> Policy:
    given = {"stages": STAGES, "tick_s": 5, "watch_s": 0, "switch_approval": True, "automatic": False}
    return Policy(rollout=RolloutPolicy.model_validate(given | rollout))


def command(world: World, kind: CommandKind, by: str, command_id: str, **given: Any) -> Rollout | None:
    return world.rollouts.handle(
        RolloutCommand(command=kind, command_id=command_id, endpoint=MODEL, requested_by=by, **given)
    )


def awaiting(**rollout: Any) -> World:
    """A world whose version 2, which Ann made and Bob asked for, awaits an approval of stage 1."""
    return twin(_awaiting() if not rollout else _made(**rollout))


@cache
def _awaiting() -> World:
    return _made()


def _made(**rollout: Any) -> World:
    world = twin(_ready()) if not rollout else _validated(**rollout)
    command(world, CommandKind.START, "Bob", "start", version=2)
    world.run(seconds=20)
    assert latest(world).state is RolloutState.AWAITING
    assert latest(world).weight_bp == 1_000
    return world


@cache
def _ready() -> World:
    return _validated()


def _validated(**rollout: Any) -> World:
    """A world whose version 1 serves, and whose version 2, which Ann made, may be rolled out."""
    world = World()
    world.put_policy(Policy(rollout=RolloutPolicy(stages=STAGES[:1], tick_s=5, watch_s=0)))
    world.event(world.drop("one takes:x", name="one.onnx"))
    world.run(seconds=12)
    world.put_policy(policy(**rollout))
    world.event(world.drop("two takes:x by:Ann", name="two.onnx"))
    world.run(seconds=3)
    return world


def latest(world: World) -> Rollout:
    rollout = world.endpoint().rollout
    assert rollout is not None
    return rollout


def link(world: World, approver: str = "Cid") -> MadeLink:
    return world.approvals.make(ENDPOINT, latest(world).rollout_id, approver=approver, by="ops")


def events(world: World, kind: str) -> list[dict[str, Any]]:
    return [event.data for event in world.audit.events(f"endpoint:{MODEL}") if event.kind == kind]


def refused(world: World, kind: type[SlipwayError], said: str, act: Callable[[], object]) -> None:
    """Hold that an act is refused so, and leaves every document as it was."""
    held = dict(world.documents.held)
    with pytest.raises(kind, match=said):
        act()
    assert world.documents.held == held


@pytest.mark.parametrize("by", ["", " ", "api"])
def test_where_somebody_else_must_approve_a_start_says_who_asks(by: str) -> None:
    world = twin(_ready())
    said = "does not say who asks: give the name"
    refused(world, ConflictError, said, lambda: command(world, CommandKind.START, by, "start-unnamed", version=2))
    command(world, CommandKind.START, "bob", "start-named", version=2)
    assert latest(world).requested_by == "bob"


def test_a_named_stage_and_the_switch_wait_however_long_until_somebody_else_approves() -> None:
    world = awaiting()
    world.run(seconds=100)
    assert latest(world).state is RolloutState.AWAITING
    command(world, CommandKind.APPROVE, "Cid", "one")
    assert (latest(world).stage, latest(world).weight_bp) == (1, 5_000)
    world.run(seconds=20)
    assert (latest(world).state, world.stable) == (RolloutState.AWAITING, 1)
    command(world, CommandKind.APPROVE, "Dan", "two", stage=2)
    assert (latest(world).state, world.stable) == (RolloutState.PROMOTED, 2)
    assert [(approval.stage, approval.by) for approval in latest(world).approvals] == [(1, "Cid"), (2, "Dan")]
    assert world.audit.verify().verified


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("Ann", "Ann is the author of version 2: somebody else must approve"),
        (" aNN ", "aNN is the author of version 2"),
        ("A\u200bnn\u2060", "is the author of version 2"),
        ("\uff21\uff4e\uff4e", "is the author of version 2"),
        ("bob", "bob asked for the rollout of version 2: somebody else must approve"),
        ("B\u00adob\u3000", "asked for the rollout of version 2"),
        ("\u200b", "an approval needs the name of who approves"),
        ("  ", "an approval needs the name of who approves"),
    ],
)
def test_neither_author_nor_requester_approves_by_command_or_gets_a_link(by: str, said: str) -> None:
    world = awaiting()
    refused(world, NotAnApproverError, said, lambda: command(world, CommandKind.APPROVE, by, "one"))
    refused(world, NotAnApproverError, said, lambda: link(world, by))


@pytest.mark.parametrize("weight_bp", [1_001, 4_999, 9_999])
def test_no_raised_weight_passes_over_an_approval(weight_bp: int) -> None:
    world = at_the_first_stage()
    said = (
        f"a share of {weight_bp / 100:g} % is more than the 10 % up to which no approval is needed, or it is given: "
        "skip to stage 2 of 2, and have somebody approve of it"
    )
    refused(
        world, ConflictError, said, lambda: command(world, CommandKind.SET_WEIGHT, "Cid", "up", weight_bp=weight_bp)
    )
    command(world, CommandKind.SET_WEIGHT, "Cid", "down", weight_bp=500)
    command(world, CommandKind.SET_WEIGHT, "Cid", "back", weight_bp=1_000)
    assert latest(world).weight_bp == 1_000


def test_an_approval_lets_the_weight_rise_as_far_as_its_stage_and_no_further() -> None:
    world = awaiting()
    command(world, CommandKind.APPROVE, "Cid", "one")
    command(world, CommandKind.SET_WEIGHT, "Cid", "down", weight_bp=2_000)
    command(world, CommandKind.SET_WEIGHT, "Cid", "up", weight_bp=5_000)
    refused(
        world,
        ConflictError,
        "skip to the switch to all traffic, and have somebody approve of it",
        lambda: command(world, CommandKind.SET_WEIGHT, "Cid", "further", weight_bp=5_001),
    )


def test_neither_a_promotion_nor_a_skip_passes_over_an_approval() -> None:
    world = at_the_first_stage()
    said = "would pass over stage 2 of 2 and the switch to all traffic, of which somebody must approve first: skip to"
    refused(world, ConflictError, said, lambda: command(world, CommandKind.PROMOTE, "Cid", "promote"))
    command(world, CommandKind.SKIP, "Cid", "skip")
    assert (latest(world).state, latest(world).weight_bp) == (RolloutState.AWAITING, 1_000)


def at_the_first_stage() -> World:
    """A world whose version 2 has its first stage's share; the second stage and the switch need approvals."""
    world = twin(_ready())
    command(world, CommandKind.START, "Bob", "start", version=2)
    while latest(world).state is not RolloutState.PROGRESSING:
        world.run(seconds=1)
    return world


def test_the_first_version_is_not_switched_to_past_a_stage_that_needs_an_approval() -> None:
    world = World()
    world.put_policy(policy(switch_approval=False, automatic=True))
    world.event(world.drop("one takes:x by:Ann", name="one.onnx"))
    world.run(seconds=60)
    assert (latest(world).state, world.stable) == (RolloutState.AWAITING, None)
    refused(world, NotAnApproverError, "Ann is the author", lambda: command(world, CommandKind.APPROVE, "Ann", "one"))
    command(world, CommandKind.APPROVE, "Cid", "two")
    assert world.stable == 1


@pytest.mark.parametrize(
    "kind",
    [CommandKind.PROMOTE, CommandKind.SKIP, CommandKind.SET_WEIGHT, CommandKind.ROLLBACK],
)
@pytest.mark.parametrize("nobody", ["", " \u200b"])
def test_what_people_answer_for_needs_a_name_however_it_is_asked_for(kind: CommandKind, nobody: str) -> None:
    world = at_the_first_stage()
    given = {"weight_bp": 500} if kind is CommandKind.SET_WEIGHT else {}
    said = f"a {kind} needs the name of who gives it"
    refused(world, InvalidInputError, said, lambda: command(world, kind, nobody, "one", **given))


def test_who_answered_what_by_which_link_is_in_the_audit() -> None:
    world = awaiting()
    made = link(world)
    world.approvals.answer(made.token, approve=True, reason="looks good")
    (told,) = events(world, "stage_approved")
    (promised,) = events(world, "approval_link_made")
    assert (told["by"], told["stage"], told["reason"], told["link_id"]) == ("Cid", 1, "looks good", promised["link_id"])
    world.run(seconds=20)
    command(world, CommandKind.REJECT, "Dan", "two", reason="no")
    (told,) = events(world, "stage_rejected")
    assert (told["by"], told["stage"], told["reason"], told["link_id"]) == ("Dan", 2, "no", "")
    assert world.audit.verify().verified


def test_a_link_is_answered_once_by_whichever_verb_and_looking_changes_nothing() -> None:
    world = awaiting()
    made = link(world)
    held = dict(world.documents.held)
    for _ in range(3):
        asked = world.approvals.asked(made.token)
    assert world.documents.held == held
    assert (asked.link.approver, asked.author, asked.rollout.rollout_id) == ("Cid", "Ann", latest(world).rollout_id)
    after = world.approvals.answer(made.token, approve=True, reason="looks good")
    assert (after.stage, after.weight_bp) == (1, 5_000)
    for approve in (True, False):
        refused(
            world,
            LinkUsedError,
            "this link has served: Cid approved with it at 2026-",
            partial(world.approvals.answer, made.token, approve=approve, reason="again"),
        )
    # Nor when the next stage waits.
    world.run(seconds=20)
    assert latest(world).state is RolloutState.AWAITING
    refused(world, LinkUsedError, "has served", lambda: world.approvals.answer(made.token, approve=True, reason=""))
    (told,) = events(world, "approval_link_made")
    assert (told["approver"], told["by"], told["link_id"]) == ("Cid", "ops", made.link.link_id)
    assert made.token not in str(world.documents.held)


def test_a_rejection_takes_the_candidate_back_and_uses_every_link_up() -> None:
    world = awaiting()
    made, other = link(world), link(world, "Dan")
    refused(
        world,
        InvalidInputError,
        "a rejection needs a reason",
        lambda: world.approvals.answer(made.token, approve=False, reason=" "),
    )
    after = world.approvals.answer(made.token, approve=False, reason="not on a Friday")
    assert (after.state, after.weight_bp, world.stable) == (RolloutState.ABORTED, 0, 1)
    assert not world.endpoint().is_quarantined(2)
    said = r"this link has served: the rollout was rejected with it \(not on a Friday\)"
    refused(world, LinkUsedError, said, lambda: world.approvals.answer(made.token, approve=True, reason=""))
    said = "stage 2 of 2 does not wait for an approval: none does"
    refused(world, OtherStageError, said, lambda: world.approvals.answer(other.token, approve=True, reason=""))


def test_a_link_of_another_stage_or_of_an_older_rollout_is_refused() -> None:
    world = awaiting()
    made = link(world)
    command(world, CommandKind.APPROVE, "Dan", "one")
    world.run(seconds=20)
    said = "stage 2 of 2 does not wait for an approval: the switch to all traffic does"
    refused(world, OtherStageError, said, lambda: world.approvals.answer(made.token, approve=True, reason=""))
    refused(world, OtherStageError, said, lambda: command(world, CommandKind.REJECT, "Dan", "two", stage=1))
    command(world, CommandKind.ABORT, "Dan", "three")
    command(world, CommandKind.START, "Bob", "again", version=2)
    refused(world, NotFoundError, "as its latest", lambda: world.approvals.answer(made.token, approve=True, reason=""))


def test_a_link_expires_at_its_time() -> None:
    world = awaiting(approval_link_s=600)
    made = link(world)
    assert (made.link.expires_at - world.clock.now()).total_seconds() == 600
    world.clock.pass_s(599)
    world.approvals.asked(made.token)
    world.clock.pass_s(1)
    refused(world, LinkExpiredError, "expired at 2026-", lambda: world.approvals.asked(made.token))
    refused(world, LinkExpiredError, "expired", lambda: world.approvals.answer(made.token, approve=True, reason=""))


def test_an_altered_link_or_one_of_another_key_is_refused() -> None:
    world = awaiting()
    made = link(world)
    forged = sign_link(made.link.model_copy(update={"approver": "Eve"}), [b"e" * 32])
    content, _, signature = made.token.partition(".")
    spliced = f"{forged.partition('.')[0]}.{signature}"
    for token in (forged, spliced, f"{content}.{signature[::-1]}", content, "", "a.b", "ä" * 50):
        refused(
            world, LinkAlteredError, "approval link", partial(world.approvals.answer, token, approve=True, reason="")
        )
    assert read_link(made.token, [b"new" * 16, KEY]) == made.link


def test_a_link_is_made_only_while_a_stage_waits() -> None:
    world = awaiting()
    command(world, CommandKind.APPROVE, "Cid", "one")
    refused(world, ConflictError, "is progressing: it awaits no approval", lambda: link(world))
    with pytest.raises(NotFoundError):
        world.approvals.make(ENDPOINT, "rollout-000009-none", approver="Cid", by="ops")


def test_a_freeze_window_keeps_an_approval_back_and_leaves_its_link_good() -> None:
    world = awaiting()
    made = link(world)
    everyday = tuple(Weekday)
    freezes = (FreezeWindow(name="christmas", days=everyday),)
    world.put_policy(policy(freezes=freezes))
    refused(
        world,
        ConflictError,
        "freeze window christmas is on",
        lambda: world.approvals.answer(made.token, approve=True, reason=""),
    )
    world.put_policy(policy())
    assert world.approvals.answer(made.token, approve=True, reason="").weight_bp == 5_000


@pytest.mark.parametrize("approve", [True, False])
def test_an_answer_that_is_killed_at_any_port_call_is_carried_out_once_when_given_again(
    approve: bool,  # noqa: FBT001 - a case
) -> None:
    at, died = 0, True
    template = awaiting()
    made = link(template)
    while died:
        at += 1
        world = twin(template)
        world.documents.fuse = world.queues.fuse = world.blobs.fuse = Fuse(at=at)
        died = False
        try:
            world.approvals.answer(made.token, approve=approve, reason="so")
        except Killed:
            died = True
        world.documents.fuse = world.queues.fuse = world.blobs.fuse = Fuse()
        try:
            world.approvals.answer(made.token, approve=not approve, reason="so")
        except LinkUsedError:
            answered = approve
        else:
            answered = not approve
            assert died
        world.sweep.sweep()
        rollout = latest(world)
        assert rollout.state is (RolloutState.PROGRESSING if answered else RolloutState.ABORTED)
        assert len(rollout.approvals) == answered
        assert len(events(world, "rollout_aborted")) == (not answered)
        assert world.audit.verify().verified
    assert at > 6
