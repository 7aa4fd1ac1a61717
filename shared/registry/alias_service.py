"""Sets aliases, has them follow rollouts, and tells what they name and named.

A command is carried out once under its id, however late it comes again. A conditional one names the version that it
expects the alias to name; of any number of them one wins.

An endpoint keeps its calls for moves until they are heard. Whatever changes an alias hears them first, in their order,
and whoever asks what it named at a time is answered as if they had been: a message that is late changes no answer. A
move that is just being saved counts from when it is saved.
"""

from collections.abc import Callable, Iterator, Sequence
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
    AliasMoveRecord,
    AliasName,
    alias_id,
    command_id_of,
    in_order,
    known_moves,
    move_at,
    said,
)
from shared.registry.commands import SetAlias
from shared.registry.documents import Model, ModelVersion, VersionState
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.store.ports import Container, DocumentStore
from shared.store.repository import Repository
from shared.store.unreadable import Unreadable, leaving_out, named


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
    unreadable: Sequence[Unreadable] = ()


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
        version than was expected or the version is not fit for it. Then nothing has changed; only where the version
        was archived while the move was being saved does the history hold the move, and that it was taken back.
        """
        self._registry.model(command.model)
        now = self._clock.now()

        def move(alias: Alias) -> bool:
            if self._was_carried_out(alias, command.command_id):
                return False
            if command.expected_version != "any":
                alias.check_expected(command.expected_version)
            if command.version is not None:
                self._check_fit(command.model, command.alias, command.version)
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

    def aliases(self, model: str, unreadable: list[Unreadable] | None = None) -> list[Alias]:
        """A model's aliases, by name. Raises NotFoundError for a model that does not exist.

        What cannot be read is left out and added to `unreadable`, where that is given, and is an error elsewhere.
        """
        self._registry.model(model)
        return [alias for alias in self._all(model, unreadable) if alias.sequence > 0]

    def named(self, model: str, unreadable: list[Unreadable] | None = None) -> dict[int, list[str]]:
        """The aliases of each version that has any. `unreadable` as above."""
        found: dict[int, list[str]] = {}
        for alias in self._all(model, unreadable):
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

    def production(self, unreadable: list[Unreadable]) -> dict[str, int]:
        """The production version of each model that has one. What cannot be read is added to `unreadable`."""
        found = self._aliases.readable(unreadable=unreadable, alias=PRODUCTION)
        return {alias.model: alias.version for alias in found if alias.version is not None}

    def history(self, model: str, name: AliasName, continuation: str | None = None) -> MovePage:
        """A page of an alias's moves, newest first. Raises NotFoundError."""
        alias = self.alias(model, name)
        page = self._documents.query(
            Container.MODELS, partition=model, where={"kind": "alias_move", "alias": name}, continuation=continuation
        )
        # What was made and not archived yet stands in the alias alone.
        waiting = [] if continuation else alias.waiting_moves()
        unreadable, archived = list[Unreadable](), list[dict[str, Any]]()
        for stored in page.items:
            with leaving_out(named(Container.MODELS, stored.body), unreadable):
                AliasMoveRecord.model_validate(stored.body)
                archived.append(stored.body)
        items = list(in_order(waiting, iter(archived)))
        return MovePage(items=items, continuation=page.continuation, unreadable=unreadable)

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

    def _all(self, model: str, unreadable: list[Unreadable] | None) -> Iterator[Alias]:
        if unreadable is None:
            return self._aliases.where(partition=model)
        return self._aliases.readable(partition=model, unreadable=unreadable)

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

    def _check_fit(self, model: str, name: str, number: int) -> None:
        state = self._registry.version(model, VersionNumber(number)).state
        if state is VersionState.ARCHIVED:
            raise ConflictError(f"version {number} of {model} is archived: an alias names one that is in use")
        if name in VALIDATED_ONLY and state is not VersionState.VALIDATED:
            raise ConflictError(f"version {number} of {model} is {state}: {name} names a validated version")

    def _is_fit(self, alias: Alias, number: int) -> bool:
        try:
            self._check_fit(alias.model, alias.alias, number)
        except (ConflictError, NotFoundError):
            return False
        return True

    def _check_still_fit(self, command: SetAlias, alias: Alias) -> None:
        """Take the move back where its version was archived meanwhile: whoever archives looks at the aliases after."""
        if alias.version is not None and alias.version == command.version:
            try:
                self._check_fit(alias.model, alias.alias, alias.version)
            except ConflictError as conflict:
                alias = self._take_back(command, str(conflict))
        if alias.latest and alias.latest.command_id == command.command_id:
            return
        taken_back = self._carried_out(alias, _taking_back(command))
        if taken_back:
            raise ConflictError(f"the move of {alias.alias} to {said(command.version)} was {taken_back.reason}")

    def _take_back(self, command: SetAlias, conflict: str) -> Alias:
        now, reason = self._clock.now(), f"taken back: {conflict}"

        def take_back(alias: Alias) -> bool:
            if alias.latest is None or alias.latest.command_id != command.command_id:
                return False
            before = alias.recent[1].version if len(alias.recent) > 1 else None
            alias.move(
                before if before is not None and self._is_fit(alias, before) else None,
                now,
                by=command.by,
                reason=reason,
                command_id=_taking_back(command),
                takes_back=alias.latest.sequence,
            )
            return True

        def clear(alias: Alias) -> bool:
            latest = alias.latest
            if latest is None or latest.command_id != _taking_back(command) or latest.version is None:
                return False
            if self._is_fit(alias, latest.version):
                return False
            alias.move(
                None,
                now,
                by=command.by,
                reason=f"version {latest.version} was archived too",
                command_id=f"{_taking_back(command)} for good",
                takes_back=latest.takes_back,
            )
            return True

        self._change(command.model, command.alias, take_back)
        # As after any move: the version that it names again may have been archived just then.
        return self._change(command.model, command.alias, clear)

    def _was_carried_out(self, alias: Alias, command_id: str) -> bool:
        return self._carried_out(alias, command_id) is not None

    def _carried_out(self, alias: Alias, command_id: str) -> AliasMove | None:
        """The move that a command led to, or None."""
        known = next((move for move in known_moves(alias) if move.command_id == command_id), None)
        return known or next(in_order([], self._archived(alias, command_id=command_id)), None)

    def _archived(self, alias: Alias, **fields: str) -> Iterator[dict[str, Any]]:
        continuation = None
        while True:
            page = self._documents.query(
                Container.MODELS,
                partition=alias.model,
                where={"kind": "alias_move", "alias": alias.alias, **fields},
                continuation=continuation,
            )
            yield from (stored.body for stored in page.items)
            if page.continuation is None:
                return
            continuation = page.continuation


def _taking_back(command: SetAlias) -> str:
    return f"{command.command_id}:taken back"


def _not_found(model: str, name: str) -> NotFoundError:
    return NotFoundError(f"alias {name} of model {model!r}", hint="it comes to be when it is first set")
