"""Aliases: names for versions that people and rollouts move, with every move kept.

An alias is an aggregate of its own, changed by one conditional replace: of any number of moves from one known version,
one wins. Its history is one line: moves are numbered without gaps, their times never go back, and each is archived as
a document, so that "which version was champion at time T" has one answer for good.

`champion`, `challenger` and `production` follow the rollouts of their model, by messages that may come late or twice.
Somebody may move them by hand too; what happened later holds.
"""

import heapq
import re
from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from typing import Any, ClassVar, Literal, NewType

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.core.errors import ConflictError, InvalidInputError
from shared.core.messages import MoveAlias
from shared.registry.documents import VersionState, waiting_records
from shared.store.aggregate import Aggregate
from shared.store.ports import Container

AliasName = NewType("AliasName", str)

CHAMPION = AliasName("champion")
"""The version that a rollout promoted last."""
CHALLENGER = AliasName("challenger")
"""The candidate of the rollout under way."""
PRODUCTION = AliasName("production")
STAGING = AliasName("staging")

VALIDATED_ONLY = frozenset({CHAMPION, PRODUCTION})
"""Aliases that name validated versions alone."""

_RECENT = 20
_LARGEST_SEQUENCE = 999_999_999
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_LIKE_A_VERSION = re.compile(r"v[0-9]+")


def alias_name(text: str) -> AliasName:
    """Check an alias's name. Raises InvalidInputError."""
    if not _NAME.fullmatch(text):
        raise InvalidInputError(
            f"{text[:80]!r} is not an alias: use 1 to 63 lower-case letters, digits and hyphens, starting with a letter"
        )
    if _LIKE_A_VERSION.fullmatch(text):
        raise InvalidInputError(f"{text!r} reads like a version's number: use another alias")
    return AliasName(text)


class AliasMove(BaseModel):
    """One move of an alias."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sequence: int
    """Counts the alias's moves, from 1. Of moves at one time the later in sequence holds."""
    version: int | None
    """What the alias names from then on; None: nothing."""
    at: AwareDatetime
    by: str
    reason: str
    command_id: str
    generation: int | None = None
    """For a move that followed a rollout: the generation of the endpoint's plan that called for it."""


class AliasMoveRecord(AliasMove):
    """A move, archived as a document."""

    id: str
    kind: Literal["alias_move"] = "alias_move"
    model: str
    alias: str

    def move(self) -> AliasMove:
        """The move itself."""
        return AliasMove.model_validate(self.model_dump(include=set(AliasMove.model_fields)))


class Alias(Aggregate):
    """An alias of a model."""

    container: ClassVar[Container] = Container.MODELS

    id: str
    kind: Literal["alias"] = "alias"
    model: str
    alias: str
    version: int | None = None
    sequence: int = 0
    recent: list[AliasMove] = Field(default_factory=list)
    """The latest moves, newest first."""
    generation: int = 0
    """The latest generation of the endpoint's plan whose call was heard, whether or not the alias then moved."""

    @property
    def stream(self) -> str:
        """The name of its audit stream."""
        return f"alias:{self.model}:{self.alias}"

    @property
    def partition(self) -> str:
        """Its container's partition key."""
        return self.model

    @property
    def latest(self) -> AliasMove | None:
        """Its latest move."""
        return self.recent[0] if self.recent else None

    def move(
        self, version: int | None, at: datetime, *, by: str, reason: str, command_id: str, generation: int | None = None
    ) -> None:
        """Move it. A clock that went back does not take the history back: the move is as late as the one before."""
        self.sequence += 1
        move = AliasMove(
            sequence=self.sequence,
            version=version,
            at=max(at, self.latest.at) if self.latest else at,
            by=by,
            reason=reason,
            command_id=command_id,
            generation=generation,
        )
        before, self.version = self.version, version
        self.recent = [move, *self.recent][:_RECENT]
        record = AliasMoveRecord(
            id=_move_id(self.alias, self.sequence), model=self.model, alias=self.alias, **move.model_dump()
        )
        self.archive(Container.MODELS, record.model_dump(mode="json"))
        self.record("alias_moved", move.at, before=before, **move.model_dump(mode="json", exclude={"at"}))

    def follow(self, call: MoveAlias, now: datetime) -> bool:
        """Do as a rollout's step calls for, unless something later happened. Whether anything changed.

        Of calls the latest generation holds, whenever they come. A move that somebody made after the step holds
        against it.
        """
        if call.generation <= self.generation:
            return False
        self.generation = call.generation
        if call.only_from is not None and self.version != call.only_from:
            return True
        if self.version == call.version:
            return True
        latest = self.latest
        if latest and latest.generation is None and latest.at > call.at:
            self.record(
                "alias_move_overtaken",
                now,
                version=call.version,
                rollout_id=call.rollout_id,
                generation=call.generation,
                by_sequence=latest.sequence,
            )
            return True
        self.move(
            call.version,
            call.at,
            by=f"rollout {call.rollout_id}",
            reason=call.reason,
            command_id=f"{call.rollout_id}:{call.generation}",
            generation=call.generation,
        )
        return True

    def check_expected(self, expected: int | None) -> None:
        """Raise ConflictError unless the alias names this version."""
        if self.version != expected:
            raise ConflictError(
                f"{self.alias} of {self.model} names {said(self.version)}, and {said(expected)} was expected: "
                "look at it again, and decide anew"
            )

    def waiting_moves(self) -> list[AliasMove]:
        """The moves that are still to be archived, newest first."""
        found = [AliasMoveRecord.model_validate(body).move() for body in waiting_records(self, "alias_move")]
        return sorted(found, key=_newest_first)


def alias_id(alias: str) -> str:
    """The id of an alias's document."""
    return f"alias-{alias}"


def said(version: int | None) -> str:
    """What an alias names, in words."""
    return "no version" if version is None else f"version {version}"


def stage_of(state: VersionState, aliases: list[str]) -> str:
    """The stage that MLflow's registry would show: Archived, Production, Staging or None."""
    if state is VersionState.ARCHIVED:
        return "Archived"
    if PRODUCTION in aliases:
        return "Production"
    return "Staging" if STAGING in aliases else "None"


def in_order(known: list[AliasMove], archived: Iterator[dict[str, Any]]) -> Iterator[AliasMove]:
    """Moves from an alias and from its archived documents (newest first), as one line without repetition."""
    documents = (AliasMoveRecord.model_validate(body).move() for body in archived)
    previous = None
    for move in heapq.merge(sorted(known, key=_newest_first), documents, key=_newest_first):
        if previous is None or move.sequence < previous:
            yield move
        previous = move.sequence


def move_at(moves: Iterator[AliasMove], when: datetime) -> AliasMove | None:
    """The move that held at a time, of moves that come newest first. None: the alias named nothing yet."""
    return next((move for move in moves if move.at <= when), None)


def known_moves(alias: Alias) -> list[AliasMove]:
    """The moves that an alias's own document tells of, without repetition."""
    return list({move.sequence: move for move in chain(alias.recent, alias.waiting_moves())}.values())


def _newest_first(move: AliasMove) -> int:
    return -move.sequence


def _move_id(alias: str, sequence: int) -> str:
    # Documents are listed in the order of their ids: the newest comes first.
    return f"moved-{alias}-{_LARGEST_SEQUENCE - sequence:09d}"
