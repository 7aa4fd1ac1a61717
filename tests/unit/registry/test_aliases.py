"""Aliases over the real store of one machine, moved by many at once; and what they named at any time."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.clock import SystemClock
from shared.core.errors import ConflictError, InvalidInputError
from shared.core.ids import ModelName, VersionNumber
from shared.core.messages import MoveAlias
from shared.registry.alias_service import AliasService
from shared.registry.aliases import (
    Alias,
    AliasMove,
    AliasName,
    alias_id,
    alias_name,
    in_order,
    known_moves,
    move_at,
    stage_of,
)
from shared.registry.commands import SetAlias
from shared.registry.documents import Model, ModelVersion, VersionState, version_id
from shared.registry.manifest import Manifest, Task
from shared.registry.service import RegistryService
from shared.store.aggregate import ArchiveEntry
from shared.store.outbox import Outbox
from shared.store.repository import Repository
from shared.store.sqlite import SqliteDocuments
from tests.world.fakes import FakeBlobs, FakeClock, FakeQueues, Fuse

MODEL, BLUE = ModelName("digits"), AliasName("blue")
START = datetime(2026, 1, 1, tzinfo=UTC)
MOVERS = 100


@pytest.fixture
def aliases(tmp_path: Path) -> Iterator[AliasService]:
    """The aliases of a model with as many versions as there are movers, over SQLite."""
    with closing(SqliteDocuments(tmp_path / "documents.db")) as documents:
        yield aliases_over(documents)


def aliases_over(documents: SqliteDocuments) -> AliasService:
    clock = SystemClock()
    outbox = Outbox(documents, FakeBlobs(Fuse(), FakeClock()), FakeQueues(Fuse(), FakeClock()), clock)
    models, versions = Repository(Model, documents, outbox), Repository(ModelVersion, documents, outbox)
    models.create(Model(model=MODEL))
    for number in range(1, MOVERS + 2):
        versions.create(
            ModelVersion(
                id=version_id(number),
                model=MODEL,
                version=number,
                state=VersionState.VALIDATED,
                drop="digits/model.onnx",
                digest=f"{number:064x}",
                artifact_digest=f"{number:064x}",
                artifact_size_bytes=1,
                manifest=Manifest(task=Task.CLASSIFICATION),
                registered_at=START,
                attempted_at=START,
            )
        )
    registry = RegistryService(models=models, versions=versions, documents=documents, clock=clock)
    return AliasService(
        aliases=Repository(Alias, documents, outbox), registry=registry, documents=documents, clock=clock
    )


def command(version: int, *, expected: int | None) -> SetAlias:
    return SetAlias(
        model=MODEL,
        alias=BLUE,
        version=VersionNumber(version),
        expected_version=expected,
        by=f"mover {version}",
        reason="",
        command_id=f"to {version}",
    )


def test_of_a_hundred_that_move_an_alias_at_once_from_one_version_exactly_one_wins(aliases: AliasService) -> None:
    aliases.set(command(1, expected=None))
    together = threading.Barrier(MOVERS)

    def move(version: int) -> int | ConflictError:
        together.wait()
        try:
            return aliases.set(command(version, expected=1)).version or 0
        except ConflictError as refused:
            return refused

    with ThreadPoolExecutor(MOVERS) as pool:
        ended = list(pool.map(move, range(2, MOVERS + 2)))
    won = [version for version in ended if not isinstance(version, ConflictError)]
    lost = [str(refused) for refused in ended if isinstance(refused, ConflictError)]
    assert (len(won), len(lost)) == (1, MOVERS - 1)
    assert all(f"names version {won[0]}, and version 1 was expected" in said for said in lost)
    assert [(move.sequence, move.version) for move in aliases.history(MODEL, BLUE).items] == [(2, won[0]), (1, 1)]
    assert aliases.version(MODEL, BLUE) == won[0]


def test_the_first_of_many_that_make_an_alias_wins(aliases: AliasService) -> None:
    together = threading.Barrier(8)

    def make(version: int) -> bool:
        together.wait()
        try:
            aliases.set(command(version, expected=None))
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(make, range(1, 9))) == 1
    assert len(aliases.history(MODEL, BLUE).items) == 1


type Steps = list[tuple[int | None, int]]

STEPS: st.SearchStrategy[Steps] = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(1, 5)), st.integers(-3, 5)), min_size=1, max_size=40
)


def played(steps: Steps) -> tuple[Alias, list[AliasMove]]:
    """An alias that was moved by steps of (version, seconds since the one before), and all its moves in order."""
    alias, moves, now = Alias(id=alias_id(BLUE), model=MODEL, alias=BLUE), [], START
    for number, (version, seconds) in enumerate(steps):
        now += timedelta(seconds=seconds)
        alias.move(version, now, by="ann", reason="", command_id=f"c-{number}")
        assert alias.latest is not None
        moves.append(alias.latest)
    return alias, moves


@given(STEPS, st.integers(-130, 220))
@settings(max_examples=200)
def test_at_any_time_an_alias_named_what_the_last_move_until_then_says(steps: Steps, seconds: int) -> None:
    _, moves = played(steps)
    when = START + timedelta(seconds=seconds)
    # Told another way round: play the moves anew, and look at what stands when the time is reached.
    named, time, latest = None, START, START + timedelta(seconds=steps[0][1])
    for version, passed in steps:
        time += timedelta(seconds=passed)
        latest = max(latest, time)
        if latest > when:
            break
        named = version
    found = move_at(iter(reversed(moves)), when)
    assert (found.version if found else None) == named


@given(STEPS)
@settings(max_examples=60)
def test_history_is_one_line_whatever_the_clock_does(steps: Steps) -> None:
    alias, moves = played(steps)
    assert [move.sequence for move in moves] == list(range(1, len(steps) + 1))
    assert [move.at for move in moves] == sorted(move.at for move in moves)
    assert sorted(move.sequence for move in known_moves(alias)) == list(range(1, len(steps) + 1))
    assert alias.version == steps[-1][0]


type Story = list[tuple[bool, int, int]]

STORIES: st.SearchStrategy[Story] = st.lists(
    st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 25)), min_size=1, max_size=18
)


@given(STORIES, st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_the_line_is_the_same_in_whatever_order_rollouts_calls_are_heard(story: Story, rng: Random) -> None:
    alias = Alias(id=alias_id(BLUE), model=MODEL, alias=BLUE)
    happened: list[tuple[datetime, bool, int]] = []
    heard: list[tuple[int, MoveAlias]] = []
    now = START
    # What somebody moves is known at once; what a rollout calls for is heard so many events later, or in the end.
    for number, (by_hand, seconds, delay) in enumerate(story, 1):
        now += timedelta(seconds=seconds)
        happened.append((now, by_hand, number))
        if by_hand:
            alias.move(number, now, by="ann", reason="", command_id=f"c-{number}")
        else:
            call = MoveAlias(model=MODEL, alias=BLUE, version=number, generation=number, rollout_id="r", at=now)
            heard.append((number + delay, call))
        due = [call for when, call in heard if when <= number]
        heard = [(when, call) for when, call in heard if when > number]
        for call in rng.sample(due, len(due)):
            alias.follow(call, now)
    for _, call in rng.sample(heard, len(heard)):
        alias.follow(call, now)
    line = sorted(happened)
    assert [(move.at, move.version) for move in in_order(known_moves(alias), iter(()))] == [
        (when, number) for when, _, number in reversed(line)
    ]
    assert alias.version == line[-1][2]
    bodies = sorted((entry.body for entry in alias.outbox if isinstance(entry, ArchiveEntry)), key=itemgetter("id"))
    assert [body["version"] for body in bodies] == [number for _, _, number in reversed(line)]


@pytest.mark.parametrize("name", ["champion", "a", "blue-green", "v", "v1x", "version-3", "a" * 63])
def test_a_good_name_is_taken(name: str) -> None:
    assert alias_name(name) == name


@pytest.mark.parametrize("name", ["", "Champion", "1a", "-a", "a_b", "a b", "a/b", "a" * 64, "ä", "a\n"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="is not an alias: use 1 to 63 lower-case letters"):
        alias_name(name)


@pytest.mark.parametrize("name", ["v1", "v007"])
def test_a_name_that_reads_like_a_number_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="reads like a version's number"):
        alias_name(name)


@pytest.mark.parametrize(
    ("state", "names", "stage"),
    [
        (VersionState.VALIDATED, [], "None"),
        (VersionState.VALIDATED, ["champion"], "None"),
        (VersionState.VALIDATED, ["staging", "blue"], "Staging"),
        (VersionState.VALIDATED, ["staging", "production"], "Production"),
        (VersionState.ARCHIVED, [], "Archived"),
    ],
)
def test_the_stage_is_told_by_state_and_aliases(state: VersionState, names: list[str], stage: str) -> None:
    assert stage_of(state, names) == stage
