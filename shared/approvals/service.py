"""Approvals by signed link: a link is made for one person and one stage, shown, and answered once.

Looking at a link changes nothing, for mail scanners open links too. An answer is a rollout command with an id of the
link's, so that approving and rejecting take each other's place, and a second answer is refused. That a link was made
stands in the audit, without its token.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from shared.approvals.asked import Asked, MadeLink
from shared.approvals.links import ApprovalLink, LinkExpiredError, read_link, sign_link
from shared.core.clock import Clock
from shared.core.errors import ConflictError, InvalidInputError, NotFoundError
from shared.core.ids import EndpointName, VersionNumber, endpoint_name
from shared.core.messages import CommandKind, RolloutCommand
from shared.registry.service import RegistryService
from shared.rollout.approvers import (
    check_approver,
    check_link,
    check_stage,
    link_command_id,
)
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.service import RolloutService
from shared.store.repository import Repository

_NO_KEY = "approval links are off: set SLIPWAY_APPROVAL_KEY, or approve by command"


class ApprovalService:
    """Makes links, shows what they ask, and carries answers out."""

    def __init__(
        self,
        *,
        endpoints: Repository[Endpoint],
        rollouts: RolloutService,
        registry: RegistryService,
        keys: Sequence[bytes],
        clock: Clock,
    ) -> None:
        """Without `keys` no link is made, and none is taken."""
        self._endpoints = endpoints
        self._rollouts = rollouts
        self._registry = registry
        self._keys = tuple(keys)
        self._clock = clock

    def make(self, endpoint: EndpointName, rollout_id: str, *, approver: str, by: str) -> MadeLink:
        """Make a link for the stage that waits. Two links for one stage may stand: the first answer is the one.

        Raises NotFoundError; ConflictError where nothing waits, or the approver made the version or asked for its
        rollout.
        """
        if not self._keys:
            raise ConflictError(_NO_KEY)
        approver = " ".join(approver.split())
        now = self._clock.now()
        made: list[ApprovalLink] = []

        def record(current: Endpoint) -> bool:
            rollout = _latest(current, rollout_id)
            if rollout.state is not RolloutState.AWAITING:
                raise ConflictError(f"rollout {rollout_id} of {endpoint} is {rollout.state}: it awaits no approval")
            check_approver(rollout, approver, self._author(endpoint, rollout))
            made[:] = [_link_of(endpoint, rollout, approver, now)]
            current.record(
                "approval_link_made",
                now,
                rollout_id=rollout_id,
                version=rollout.candidate.version,
                stage=made[0].stage,
                approver=approver,
                link_id=made[0].link_id,
                expires_at=made[0].expires_at.isoformat(),
                by=by,
            )
            return True

        self._endpoints.change(endpoint, ENDPOINT_ID, record)
        return MadeLink(link=made[0], token=sign_link(made[0], self._keys))

    def asked(self, token: str) -> Asked:
        """What a link asks, if it may still be answered. Changes nothing.

        Raises LinkAlteredError, LinkExpiredError, LinkUsedError; OtherStageError where its stage does not wait;
        NotFoundError where another rollout has begun since; ConflictError where links are off.
        """
        link = self._read(token)
        rollout = _latest(self._rollouts.endpoint(endpoint_name(link.endpoint)), link.rollout_id)
        check_link(rollout, link.link_id)
        check_stage(rollout, link.stage)
        return Asked(link=link, rollout=rollout, author=self._author(link.endpoint, rollout))

    def answer(self, token: str, *, approve: bool, reason: str) -> Rollout:
        """Carry an answer out. Raises as `asked` does, and whatever the command meets, as a freeze window.

        What is refused for another cause than the link's own leaves the link as good as it was.
        """
        link = self._read(token)
        if not approve and not reason.strip():
            raise InvalidInputError("a rejection needs a reason, which goes into the audit: say why")
        verb = CommandKind.APPROVE if approve else CommandKind.REJECT
        rollout = self.asked(token).rollout
        after = self._rollouts.handle(
            RolloutCommand(
                command=verb,
                command_id=link_command_id(link.link_id),
                endpoint=link.endpoint,
                rollout_id=link.rollout_id,
                requested_by=link.approver,
                reason=reason.strip(),
                stage=link.stage,
                link_id=link.link_id,
            )
        )
        return after or rollout

    def _read(self, token: str) -> ApprovalLink:
        if not self._keys:
            raise ConflictError(_NO_KEY)
        link = read_link(token, self._keys)
        if self._clock.now() >= link.expires_at:
            raise LinkExpiredError(f"this approval link expired at {link.expires_at.isoformat()}: ask for another")
        return link

    def _author(self, endpoint: str, rollout: Rollout) -> str:
        return self._registry.version(endpoint, VersionNumber(rollout.candidate.version)).author


def _latest(endpoint: Endpoint, rollout_id: str) -> Rollout:
    rollout = endpoint.rollout
    if rollout is None or rollout.rollout_id != rollout_id:
        raise NotFoundError(
            f"rollout {rollout_id} of endpoint {endpoint.endpoint}, as its latest", hint="only the latest one hears"
        )
    return rollout


def _link_of(endpoint: str, rollout: Rollout, approver: str, now: datetime) -> ApprovalLink:
    # Whole seconds, as a person reads them.
    expires_at = (now + timedelta(seconds=rollout.policy.approval_link_s)).replace(microsecond=0)
    return ApprovalLink(
        endpoint=endpoint,
        rollout_id=rollout.rollout_id,
        stage=rollout.next_stage,
        approver=approver,
        expires_at=expires_at,
        link_id=uuid4().hex,
    )
