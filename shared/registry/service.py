"""The registry: what is known of models and their versions, the policies that hold for them, and who approved what."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from shared.core.clock import Clock
from shared.core.errors import ConflictError, InvalidInputError, NotFoundError
from shared.core.ids import ModelName, VersionNumber
from shared.core.messages import CommandKind, RolloutCommand, ValidateVersion
from shared.registry.commands import Approve
from shared.registry.documents import (
    MODEL_ID,
    Approval,
    BeforeArchiving,
    Model,
    ModelVersion,
    VersionState,
    is_same_person,
    policy_id,
    version_id,
    waiting_records,
)
from shared.registry.loosening import check_loosened
from shared.registry.margins import check_margins
from shared.registry.policy import Policy
from shared.rollout.documents import automatic_command_id
from shared.signing.keys import TrustedKey
from shared.store.ports import Container, DocumentStore
from shared.store.repository import AggregatePage, Repository
from shared.store.unreadable import Unreadable

MAX_POLICY_BYTES = 300_000
"""Of JSON. A document bears 2 MB: its model's holds the policy three times while it is being set, and its endpoint's
twice while a rollout is archived and the next one begins."""
_MAX_REASON_LENGTH = 500
_SEARCHED_PAGES = 20
"""Pages of versions that one search reads at most before it answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPage:
    """A page of a model's policies, oldest first, each as it was set; `continuation` is None on the last page."""

    items: list[dict[str, Any]]
    continuation: str | None


class RegistryService:
    """Finds models and versions; keeps policies and approvals."""

    def __init__(
        self,
        *,
        models: Repository[Model],
        versions: Repository[ModelVersion],
        documents: DocumentStore,
        clock: Clock,
    ) -> None:
        self._models = models
        self._versions = versions
        self._documents = documents
        self._clock = clock

    def model(self, name: str) -> Model:
        """A model. Raises NotFoundError."""
        found = self._models.find(name, MODEL_ID)
        if found is None:
            raise NotFoundError(f"model {name!r}", hint=f"drop one at incoming/{name}/")
        return found

    def models(self, continuation: str | None = None) -> AggregatePage[Model]:
        """A page of all models."""
        return self._models.page(continuation=continuation)

    def put_policy(
        self, name: ModelName, policy: Policy, *, by: str, reason: str = "", expected_version: int | None = None
    ) -> Model:
        """Set a model's policy, which gets the next number unless it is the one in force already.

        The model comes to be where there is none; rollouts under way keep their policy. Raises InvalidInputError for a
        policy above MAX_POLICY_BYTES, for a trusted key that is none, for gates that no version as good as stable can
        pass (shared.registry.margins), and for one that loosens what keeps candidates back without a name and a reason
        (shared.registry.loosening); ConflictError where the policy in force has another number than `expected_version`.
        """
        _check_size(name, policy)
        _check_keys(policy)
        check_margins(policy.rollout)
        now = self._clock.now()

        def put(model: Model) -> bool:
            if model.policy == policy and model.policy_version:
                return False
            if expected_version is not None and model.policy_version != expected_version:
                raise ConflictError(
                    f"the policy of {name} has the number {model.policy_version}, and {expected_version} was expected: "
                    "look at it again, and decide anew"
                )
            check_loosened(model.policy.rollout, policy.rollout, by=by, reason=reason)
            model.set_policy(policy, now, by=by, reason=reason)
            return True

        if self._models.find(name, MODEL_ID) is None:
            # What is refused makes no model.
            put(Model(model=name))
            self._models.find_or_create(Model(model=name))
        return self._models.change(name, MODEL_ID, put)

    def policies(self, name: str, continuation: str | None = None) -> PolicyPage:
        """A page of a model's policies, in the order of their numbers. Raises NotFoundError."""
        model = self.model(name)
        page = self._documents.query(
            Container.MODELS, partition=name, where={"kind": "policy_version"}, continuation=continuation
        )
        items = [stored.body for stored in page.items]
        if page.continuation is None:
            held = {body["id"] for body in items}
            items += [body for body in waiting_records(model, "policy_version") if body["id"] not in held]
        return PolicyPage(items=items, continuation=page.continuation)

    def policy(self, name: str, policy_version: int) -> dict[str, Any]:
        """A policy as it was set under a number. Raises NotFoundError."""
        model = self.model(name)
        stored = self._documents.get(Container.MODELS, name, policy_id(policy_version))
        if stored:
            return stored.body
        for body in waiting_records(model, "policy_version"):
            if body["policy_version"] == policy_version:
                return body
        raise NotFoundError(
            f"policy {policy_version} of model {name!r}", hint=f"they are numbered 1 to {model.policy_version}"
        )

    def version(self, name: str, number: VersionNumber) -> ModelVersion:
        """A version of a model. Raises NotFoundError."""
        found = self._versions.find(name, version_id(number))
        if found is None:
            raise NotFoundError(f"version {number} of model {name!r}")
        return found

    def versions(
        self,
        name: str,
        continuation: str | None = None,
        *,
        matches: Callable[[ModelVersion], bool] | None = None,
    ) -> AggregatePage[ModelVersion]:
        """A page of a model's versions, in the order of their numbers; only those that match, if that is asked for.

        A page of matches may be short or empty although more follow: its continuation tells.
        """
        unreadable = list[Unreadable]()
        for _ in range(_SEARCHED_PAGES):
            page = self._versions.page(partition=name, continuation=continuation)
            if matches is None:
                return page
            found = [version for version in page.items if matches(version)]
            continuation = page.continuation
            unreadable += page.unreadable
            if found or continuation is None:
                return AggregatePage(found, continuation, unreadable)
        return AggregatePage([], continuation, unreadable)

    def approve(self, command: Approve) -> ModelVersion:
        """Note somebody's approval of a validated version, once a command and once a person.

        The approval that completes those that policy wants starts the rollout that waits for it. Raises ConflictError
        for the version's author, for somebody who approved it before, for a version that is not validated, and for one
        that has all the approvals that its policy wants.
        """
        if is_same_person(command.by, ""):
            raise InvalidInputError("an approval needs a name: say in `by` who approves")
        now = self._clock.now()

        def approve(version: ModelVersion) -> bool:
            if any(approval.command_id == command.command_id for approval in version.approvals):
                return False
            _check_may_approve(version, command.by)
            wanted = self.model(command.model).policy.rollout.approvals
            if not version.approvals_missing(wanted):
                raise ConflictError(
                    f"version {version.version} of {version.model} has {len(version.approvals)} approvals, and its "
                    f"policy wants {wanted}: no more are taken"
                )
            approval = Approval(by=command.by.strip(), reason=command.reason, at=now, command_id=command.command_id)
            version.approvals = [*version.approvals, approval]
            version.record("version_approved", now, version=version.version, **approval.model_dump(exclude={"at"}))
            if version.rollout_pending and not version.approvals_missing(wanted):
                people = ", ".join(approval.by for approval in version.approvals)
                version.send(automatic_start(version, reason=f"approved by {people}"[:_MAX_REASON_LENGTH]))
            return True

        self.version(command.model, command.version)
        return self._versions.change(command.model, version_id(command.version), approve)

    def note_refused_start(self, version: ModelVersion, reason: str) -> None:
        """Note that policy will not start a version's rollout."""
        now = self._clock.now()

        def note(current: ModelVersion) -> bool:
            if current.rollout_refused == reason and not current.rollout_pending:
                return False
            current.rollout_pending = False
            current.rollout_refused = reason
            current.record("rollout_refused", now, version=current.version, reason=reason)
            return True

        self._versions.change(version.partition, version.id, note)

    def revalidate(self, name: str, number: VersionNumber, *, by: str, reason: str) -> ModelVersion:
        """Have a rejected version validated again, under the policy and beside the champion of now.

        Its last report stands until there is another. One that is not decided yet is left as it is. Raises
        NotFoundError; ConflictError for a version that is validated or archived.
        """
        now = self._clock.now()

        def again(version: ModelVersion) -> bool:
            if version.state.is_undecided:
                return False
            if version.state is not VersionState.REJECTED:
                raise ConflictError(
                    f"version {number} of {name} is {version.state}: only a rejected one is validated again"
                )
            version.state, version.decided_at = VersionState.REGISTERED, None
            version.failures, version.last_error = 0, ""
            version.attempted_at, version.asked_at = now, None
            version.record("version_revalidated", now, version=number, by=by, reason=reason)
            version.send(ValidateVersion(model=name, version=number))
            return True

        return self._versions.change(name, version_id(number), again)

    def mark_archived(
        self, name: str, number: VersionNumber, *, by: str, reason: str, only: VersionState | None = None
    ) -> ModelVersion:
        """Take a version out of use for good. Whoever calls has seen to it that nothing uses it.

        Raises ConflictError where it is in another state than `only`, if that is given, by which it was chosen.
        """
        now = self._clock.now()

        def archive(version: ModelVersion) -> bool:
            if version.state is VersionState.ARCHIVED:
                return False
            if only and version.state is not only:
                raise ConflictError(
                    f"version {number} of {name} was {only}, and is {version.state} by now: look at it again, and "
                    "decide anew"
                )
            before = BeforeArchiving(state=version.state, rollout_pending=version.rollout_pending)
            version.state, version.before_archiving = VersionState.ARCHIVED, before
            version.archived_at = now
            version.rollout_pending = False
            version.record("version_archived", now, version=number, before=before.state, by=by, reason=reason)
            return True

        return self._versions.change(name, version_id(number), archive)

    def take_back_archiving(self, name: str, number: VersionNumber, *, reason: str) -> None:
        """Have a version be again what it was when it was archived, for it came into use just then."""
        now = self._clock.now()

        def take_back(version: ModelVersion) -> bool:
            before = version.before_archiving
            if version.state is not VersionState.ARCHIVED or before is None:
                return False
            version.state, version.rollout_pending = before.state, before.rollout_pending
            version.archived_at, version.before_archiving = None, None
            version.record("version_revived", now, version=number, state=before.state, reason=reason)
            return True

        self._versions.change(name, version_id(number), take_back)

    def missed_validations(self, grace: timedelta) -> Iterator[ValidateVersion]:
        """A message for each version without a verdict whose validation has not begun or been asked for in `grace`."""
        now = self._clock.now()
        undecided = [state.value for state in VersionState if state.is_undecided]
        for version in [version for state in undecided for version in self._versions.readable(state=state)]:
            if not version.is_overdue(now, grace):
                continue
            noted = self._versions.change(version.partition, version.id, lambda current: _ask(current, now, grace))
            if noted.asked_at == now:
                yield ValidateVersion(model=version.model, version=version.version)


def automatic_start(version: ModelVersion, *, reason: str) -> RolloutCommand:
    """The command that starts a version's rollout by policy."""
    return RolloutCommand(
        command=CommandKind.START,
        command_id=automatic_command_id(version.model, version.version),
        endpoint=version.model,
        version=version.version,
        requested_by="policy",
        reason=reason,
    )


def _check_may_approve(version: ModelVersion, by: str) -> None:
    if version.state is not VersionState.VALIDATED:
        raise ConflictError(
            f"version {version.version} of {version.model} is {version.state}: only a validated one can be approved"
        )
    if version.author and is_same_person(by, version.author):
        raise ConflictError(
            f"{by.strip()} is the author of version {version.version} of {version.model}: somebody else has to approve"
        )
    if any(is_same_person(by, approval.by) for approval in version.approvals):
        raise ConflictError(f"{by.strip()} has approved version {version.version} of {version.model} already")


def _check_size(name: str, policy: Policy) -> None:
    size_bytes = len(policy.model_dump_json().encode())
    if size_bytes > MAX_POLICY_BYTES:
        raise InvalidInputError(
            f"the policy of {name} has {size_bytes} bytes as JSON, and at most {MAX_POLICY_BYTES} are taken: use fewer "
            "stages, or fewer and shorter queries"
        )


def _check_keys(policy: Policy) -> None:
    for number, pem in enumerate(policy.signing.trusted_keys, start=1):
        try:
            TrustedKey.from_pem(pem)
        except InvalidInputError as error:
            raise InvalidInputError(f"signing.trusted_keys, the key {number} of the list: {error}") from error


def _ask(version: ModelVersion, now: datetime, grace: timedelta) -> bool:
    """Note that a message is sent, unless it need not be any more."""
    if not version.state.is_undecided or not version.is_overdue(now, grace):
        return False
    version.asked_at = now
    return True
