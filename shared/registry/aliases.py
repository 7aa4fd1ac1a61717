"""Aliases: names for versions that people and rollouts move, with every move kept.

An alias is an aggregate of its own, changed by one conditional replace: of any number of moves from one known version,
one wins. Its history is one line in the order of time, and each move is archived as a document, so that "which version
was champion at time T" has one answer for good.

`champion`, `challenger` and `production` follow the rollouts of their model, by calls that may come late or twice.
Somebody may move them by hand too; what happened later holds. A call that is heard after that stands in the line at its
own time all the same, for until somebody moved the alias, it named what the rollout said.
"""

import heapq
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
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
_LARGEST_NUMBER = 999_999_999
_LATEST_US = 10**17 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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
    """Counts the alias's moves, from 1, in the order in which they came to be known."""
    version: int | None
    """What the alias names from then on; None: nothing."""
    at: AwareDatetime
    by: str
    reason: str
    command_id: str
    generation: int | None = None
    """For a move that followed a rollout: the generation of the endpoint's plan that called for it."""
    takes_back: int | None = None
    """For a move that undoes one which could not stand: the sequence of that one."""

    @property
    def order(self) -> tuple[datetime, bool, int]:
        """Its place in the line: of moves at one time, people's hold, then the later generation or sequence."""
        by_hand = self.generation is None
        return self.at, by_hand, self.sequence if self.generation is None else self.generation


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
    """The latest moves of the line, newest first."""
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
        self,
        version: int | None,
        at: datetime,
        *,
        by: str,
        reason: str,
        command_id: str,
        generation: int | None = None,
        takes_back: int | None = None,
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
            takes_back=takes_back,
        )
        before, self.version = self.version, version
        self._keep(move)
        self.record("alias_moved", move.at, before=before, **move.model_dump(mode="json", exclude={"at"}))

    def follow(self, call: MoveAlias, now: datetime) -> bool:
        """Do as a rollout's step calls for, unless something later happened. Whether anything changed.

        Calls are to be heard in the order of their generations. One that was passed over is put in its place in the
        line, if a later move ended what it called for; whoever calls has seen that it is not there yet.
        """
        in_turn = call.generation > self.generation
        self.generation = max(self.generation, call.generation)
        at = self._time_of(call)
        later = [move for move in self.recent if move.order > (at, False, call.generation)]
        if not later:
            if in_turn and _applies(call, self.version):
                self._follow(call, at)
            return in_turn
        before = self.recent[len(later)].version if len(later) < len(self.recent) else None
        applied = _applies(call, before)
        if applied:
            self._put_in_its_place(call, at)
        taken_back = {move.takes_back for move in self.recent}
        standing = [move for move in later if move.takes_back is None and move.sequence not in taken_back]
        if standing and (in_turn or applied):
            self._record_overtaken(call, standing[0], now)
        elif in_turn and _applies(call, self.version):
            self._follow(call, at, after=later[0])
        return in_turn or applied

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
        return sorted(found, key=_order, reverse=True)

    def _time_of(self, call: MoveAlias) -> datetime:
        """When a call was made: hosts' clocks differ, and an endpoint's later call is not earlier."""
        followed = [move for move in self.recent if move.generation is not None]
        before = [move.at for move in followed if (move.generation or 0) < call.generation]
        after = [move.at for move in followed if (move.generation or 0) > call.generation]
        return min([max([call.at, *before]), *after])

    def _follow(self, call: MoveAlias, at: datetime, *, after: AliasMove | None = None) -> None:
        """Move as a call says; `after` is the end of what was moved and taken back since."""
        self.move(
            call.version,
            at,
            by=f"rollout {call.rollout_id}",
            reason=call.reason,
            command_id=command_id_of(call) if after is None else f"{command_id_of(call)}:again",
            generation=call.generation if after is None else None,
            takes_back=None if after is None else after.takes_back,
        )

    def _put_in_its_place(self, call: MoveAlias, at: datetime) -> None:
        self.sequence += 1
        move = AliasMove(
            sequence=self.sequence,
            version=call.version,
            at=at,
            by=f"rollout {call.rollout_id}",
            reason=call.reason,
            command_id=command_id_of(call),
            generation=call.generation,
        )
        self._keep(move)

    def _keep(self, move: AliasMove) -> None:
        self.recent = sorted([move, *self.recent], key=_order, reverse=True)[:_RECENT]
        record = AliasMoveRecord(id=_move_id(self.alias, move), model=self.model, alias=self.alias, **move.model_dump())
        self.archive(Container.MODELS, record.model_dump(mode="json"))

    def _record_overtaken(self, call: MoveAlias, by: AliasMove, now: datetime) -> None:
        self.record(
            "alias_move_overtaken",
            now,
            version=call.version,
            rollout_id=call.rollout_id,
            generation=call.generation,
            by_sequence=by.sequence,
        )


def command_id_of(call: MoveAlias) -> str:
    """The id under which a rollout's call is carried out."""
    return f"{call.rollout_id}:{call.generation}"


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
    for move in heapq.merge(sorted(known, key=_order, reverse=True), documents, key=_order, reverse=True):
        if previous is None or move.order < previous:
            yield move
        previous = move.order


def move_at(moves: Iterator[AliasMove], when: datetime) -> AliasMove | None:
    """The move that held at a time, of moves that come newest first. None: the alias named nothing yet."""
    return next((move for move in moves if move.at <= when), None)


def known_moves(alias: Alias) -> list[AliasMove]:
    """The moves that an alias's own document tells of, without repetition."""
    return list({move.sequence: move for move in chain(alias.recent, alias.waiting_moves())}.values())


def _applies(call: MoveAlias, version: int | None) -> bool:
    """Whether a call changes an alias that names this version."""
    return version != call.version and call.only_from in {None, version}


def _order(move: AliasMove) -> tuple[datetime, bool, int]:
    return move.order


def _move_id(alias: str, move: AliasMove) -> str:
    # Documents are listed in the order of their ids: the newest comes first.
    at, by_hand, number = move.order
    at_us = (at - _EPOCH) // timedelta(microseconds=1)
    return f"moved-{alias}-{_LATEST_US - at_us:017d}-{int(not by_hand)}-{_LARGEST_NUMBER - number:09d}"
