"""The registry: what is known of models and their versions, and the policies that hold for them."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from shared.core.clock import Clock
from shared.core.errors import NotFoundError
from shared.core.ids import ModelName, VersionNumber
from shared.core.messages import ValidateVersion
from shared.registry.documents import MODEL_ID, Model, ModelVersion, VersionState, version_id
from shared.registry.policy import Policy
from shared.store.repository import AggregatePage, Repository


class RegistryService:
    """Finds models and versions; keeps policies."""

    def __init__(self, *, models: Repository[Model], versions: Repository[ModelVersion], clock: Clock) -> None:
        self._models = models
        self._versions = versions
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

    def put_policy(self, name: ModelName, policy: Policy, *, by: str) -> Model:
        """Set a model's policy. The model comes to be where there is none; rollouts under way keep theirs."""
        now = self._clock.now()

        def put(model: Model) -> bool:
            if model.policy == policy:
                return False
            model.policy = policy
            model.record("policy_set", now, policy=policy.model_dump(mode="json"), by=by)
            return True

        self._models.find_or_create(Model(model=name))
        return self._models.change(name, MODEL_ID, put)

    def version(self, name: str, number: VersionNumber) -> ModelVersion:
        """A version of a model. Raises NotFoundError."""
        found = self._versions.find(name, version_id(number))
        if found is None:
            raise NotFoundError(f"version {number} of model {name!r}")
        return found

    def versions(self, name: str, continuation: str | None = None) -> AggregatePage[ModelVersion]:
        """A page of a model's versions, in the order of their numbers."""
        return self._versions.page(partition=name, continuation=continuation)

    def missed_validations(self, grace: timedelta) -> Iterator[ValidateVersion]:
        """A message for each version without a verdict whose validation has not begun or been asked for in `grace`."""
        now = self._clock.now()
        undecided = [state.value for state in VersionState if state.is_undecided]
        for version in [version for state in undecided for version in self._versions.where(state=state)]:
            if not version.is_overdue(now, grace):
                continue
            noted = self._versions.change(version.partition, version.id, lambda current: _ask(current, now, grace))
            if noted.asked_at == now:
                yield ValidateVersion(model=version.model, version=version.version)


def _ask(version: ModelVersion, now: datetime, grace: timedelta) -> bool:
    """Note that a message is sent, unless it need not be any more."""
    if not version.state.is_undecided or not version.is_overdue(now, grace):
        return False
    version.asked_at = now
    return True
