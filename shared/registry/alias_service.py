"""Sets aliases, has them follow rollouts, and tells what they name and named.

A command is carried out once under its id, however late it comes again. A conditional one names the version that it
expects the alias to name; of any number of them one wins.

An endpoint keeps its calls for moves until they are heard. Whatever changes an alias hears them first, in their order,
and whoever asks what it named at a time is answered as if they had been: a message that is late changes no answer. A
move that is just being saved counts from when it is saved.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from shared.core.clock import Clock
from shared.core.errors import ConflictError, InvalidInputError, NotFoundError
from shared.core.ids import VersionNumber
from shared.core.messages import MoveAlias
from shared.registry.aliases import (
    CHAMPION,
    PRODUCTION,
    VALIDATED_ONLY,
    Alias,
    AliasMove,
    AliasName,
    alias_id,
    command_id_of,
    in_order,
    known_moves,
    move_at,
)
from shared.registry.commands import SetAlias
from shared.registry.documents import Model, ModelVersion, VersionState
from shared.rollout.documents import ENDPOINT_ID, Endpoint
from shared.store.ports import Container, DocumentStore
from shared.store.repository import Repository


class Registry(Protocol):
    """What there is to be named."""

    def model(self, name: str) -> Model:
        """A model. Raises NotFoundError."""
        ...

    def version(self, name: str, number: VersionNumber) -> ModelVersion:
        """A version. Raises NotFoundError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePage:
    """A page of an alias's moves, newest first; `continuation` is None on the last page."""

    items: list[AliasMove]
    continuation: str | None


class AliasService:
    """The aliases of all models."""

    def __init__(
        self, *, aliases: Repository[Alias], registry: Registry, documents: DocumentStore, clock: Clock
    ) -> None:
        self._aliases = aliases
        self._registry = registry
        self._documents = documents
        self._clock = clock

    def set(self, command: SetAlias) -> Alias:
        """Carry out a command once; again, answer the alias as it stands.

        Raises NotFoundError for a model or version that does not exist, ConflictError where the alias names another
        version than was expected or the version is not fit for it. Then nothing has changed.
        """
        self._registry.model(command.model)
        now = self._clock.now()

        def move(alias: Alias) -> bool:
            if self._was_carried_out(alias, command.command_id):
                return False
            if command.expected_version != "any":
                alias.check_expected(command.expected_version)
            if command.version is not None:
                self._check_fit(command, command.version)
            elif alias.sequence == 0:
                raise _not_found(command.model, command.alias)
            alias.move(command.version, now, by=command.by, reason=command.reason, command_id=command.command_id)
            return True

        alias = self._change(command.model, command.alias, move)
        self._check_still_fit(command, alias)
        return alias

    def follow(self, call: MoveAlias) -> Alias:
        """Move an alias as a rollout's step calls for; a call that was heard before changes nothing."""
        return self._change(call.model, call.alias, lambda _: False, call=call)

    def has_heard(self, call: MoveAlias) -> bool:
        """Whether a call, or one after it, has had its effect."""
        alias = self._aliases.find(call.model, alias_id(call.alias))
        return alias is not None and alias.generation >= call.generation

    def alias(self, model: str, name: AliasName) -> Alias:
        """An alias as it stands. Raises NotFoundError where it never named a version."""
        found = self._aliases.find(model, alias_id(name))
        if found is None or found.sequence == 0:
            raise _not_found(model, name)
        return found

    def aliases(self, model: str) -> list[Alias]:
        """A model's aliases, by name. Raises NotFoundError for a model that does not exist."""
        self._registry.model(model)
        return [alias for alias in self._aliases.where(partition=model) if alias.sequence > 0]

    def named(self, model: str) -> dict[int, list[str]]:
        """The aliases of each version that has any."""
        found: dict[int, list[str]] = {}
        for alias in self._aliases.where(partition=model):
            if alias.version is not None:
                found.setdefault(alias.version, []).append(alias.alias)
        return found

    def version(self, model: str, name: AliasName) -> int | None:
        """The version that an alias names, or None."""
        found = self._aliases.find(model, alias_id(name))
        return found.version if found else None

    def champion(self, model: str) -> int | None:
        """The version that candidates are compared with."""
        return self.version(model, CHAMPION)

    def production(self) -> dict[str, int]:
        """The production version of each model that has one."""
        found = self._aliases.where(alias=PRODUCTION)
        return {alias.model: alias.version for alias in found if alias.version is not None}

    def history(self, model: str, name: AliasName, continuation: str | None = None) -> MovePage:
        """A page of an alias's moves, newest first. Raises NotFoundError."""
        alias = self.alias(model, name)
        page = self._documents.query(
            Container.MODELS, partition=model, where={"kind": "alias_move", "alias": name}, continuation=continuation
        )
        # What was made and not archived yet stands in the alias alone.
        waiting = [] if continuation else alias.waiting_moves()
        items = list(in_order(waiting, (stored.body for stored in page.items)))
        return MovePage(items=items, continuation=page.continuation)

    def at(self, model: str, name: AliasName, when: datetime) -> AliasMove | None:
        """The move that held at a time; None where the alias named nothing yet. Raises NotFoundError.

        Raises InvalidInputError for a time to come: what will hold then is not known.
        """
        now = self._clock.now()
        if when > now:
            raise InvalidInputError(f"{when.isoformat()} is still to come: ask for a time that is past")
        # In this order: a call that is not unheard any more has been heard by the alias that is read after.
        unheard = self._calls(model, name)
        alias = self._aliases.find(model, alias_id(name)) or Alias(id=alias_id(name), model=model, alias=name)
        for call in unheard:
            if call.generation > alias.generation:
                alias.follow(call, now)
        if alias.sequence == 0:
            raise _not_found(model, name)
        return move_at(in_order(known_moves(alias), self._archived(alias)), when)

    def _change(
        self, model: str, name: str, change: Callable[[Alias], bool], *, call: MoveAlias | None = None
    ) -> Alias:
        """Have an alias hear the endpoint's calls, and `call`, and then change it."""
        now = self._clock.now()

        def hear_and_change(alias: Alias) -> bool:
            heard = self._hear(alias, call, now)
            return change(alias) or heard

        self._aliases.find_or_create(Alias(id=alias_id(name), model=model, alias=name))
        return self._aliases.change(model, alias_id(name), hear_and_change)

    def _hear(self, alias: Alias, call: MoveAlias | None, now: datetime) -> bool:
        changed = False
        if call and call.generation <= alias.generation and not self._was_carried_out(alias, command_id_of(call)):
            changed = alias.follow(call, now)
        calls = {found.generation: found for found in self._calls(alias.model, alias.alias)}
        if call:
            calls[call.generation] = call
        for generation in sorted(calls):
            if generation > alias.generation:
                changed = alias.follow(calls[generation], now) or changed
        return changed

    def _calls(self, model: str, name: str) -> list[MoveAlias]:
        """The calls for an alias that the endpoint does not know to be heard, in their order."""
        stored = self._documents.get(Container.ENDPOINTS, model, ENDPOINT_ID)
        return Endpoint.from_body(stored.body).calls_for(name) if stored else []

    def _check_fit(self, command: SetAlias, number: VersionNumber) -> None:
        state = self._registry.version(command.model, number).state
        if state is VersionState.ARCHIVED:
            raise ConflictError(f"version {number} of {command.model} is archived: an alias names one that is in use")
        if command.alias in VALIDATED_ONLY and state is not VersionState.VALIDATED:
            raise ConflictError(
                f"version {number} of {command.model} is {state}: {command.alias} names a validated version"
            )

    def _check_still_fit(self, command: SetAlias, alias: Alias) -> None:
        """Take the move back where its version was archived meanwhile: whoever archives looks at the aliases after."""
        if alias.version is None or alias.version != command.version:
            return
        try:
            self._check_fit(command, VersionNumber(alias.version))
        except ConflictError as conflict:
            now, reason = self._clock.now(), f"taken back: {conflict}"

            def take_back(current: Alias) -> bool:
                if current.latest is None or current.latest.command_id != command.command_id:
                    return False
                before = current.recent[1].version if len(current.recent) > 1 else None
                taken_back = f"{command.command_id}:taken back"
                current.move(before, now, by=command.by, reason=reason, command_id=taken_back)
                return True

            self._change(command.model, command.alias, take_back)
            raise

    def _was_carried_out(self, alias: Alias, command_id: str) -> bool:
        if any(move.command_id == command_id for move in known_moves(alias)):
            return True
        where = {"kind": "alias_move", "alias": alias.alias, "command_id": command_id}
        continuation = None
        while True:
            page = self._documents.query(
                Container.MODELS, partition=alias.model, where=where, page_size=1, continuation=continuation
            )
            if page.items or page.continuation is None:
                return bool(page.items)
            continuation = page.continuation

    def _archived(self, alias: Alias) -> Iterator[dict[str, Any]]:
        continuation = None
        while True:
            page = self._documents.query(
                Container.MODELS,
                partition=alias.model,
                where={"kind": "alias_move", "alias": alias.alias},
                continuation=continuation,
            )
            yield from (stored.body for stored in page.items)
            if page.continuation is None:
                return
            continuation = page.continuation


def _not_found(model: str, name: str) -> NotFoundError:
    return NotFoundError(f"alias {name} of model {model!r}", hint="it comes to be when it is first set")
