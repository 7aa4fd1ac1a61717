"""The pod's own guard: what it trips on, what it never trips on, and what is kept of a trip."""

import random
import resource
from pathlib import Path

import pytest
from aks_serving.guard import TripGuard, Trips

from shared.core.errors import InvalidInputError
from shared.routing.plan import Guard


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A guard whose every batch ends a slice of time, and what it said."""

    def __init__(self, settings: Guard | None = None, tripped: str | None = None) -> None:
        self.clock, self.said = Clock(), list[str]()
        self.guard = TripGuard(
            settings or Guard(), version=2, tripped=tripped, on_trip=self.said.append, now_s=self.clock
        )

    def batch(self, candidate_ok: int, candidate_failed: int, stable_ok: int, stable_failed: int) -> None:
        self.clock.now += 1.0
        self.guard.observe(candidate_ok, candidate_failed, stable_ok, stable_failed)


def test_a_candidate_that_fails_everything_trips_within_ten_requests_and_says_why() -> None:
    watched = Watched()
    for _ in range(10):
        watched.batch(0, 1, 19, 0)
    assert watched.guard.tripped is not None
    assert watched.said == [watched.guard.tripped]
    assert "the candidate failed 3 of 3 requests (100.00%)" in watched.guard.tripped
    assert "stable at the same time 0 of 57 requests (0.00%)" in watched.guard.tripped
    assert "proven at level 0.001" in watched.guard.tripped


def test_a_candidate_that_fails_one_in_twenty_trips_within_some_hundred_requests() -> None:
    watched, generator, asked = Watched(), random.Random(5), 0
    while watched.guard.tripped is None and asked < 400:
        asked += 2
        failed = sum(generator.random() < 0.05 for _ in range(2))
        watched.batch(2 - failed, failed, 38, 0)
    assert watched.guard.tripped is not None


def test_an_outage_of_both_arms_never_trips() -> None:
    watched = Watched()
    for failing in [False] * 20 + [True] * 100 + [False] * 20:
        watched.batch(5 * (not failing), 5 * failing, 95 * (not failing), 95 * failing)
    assert watched.guard.tripped is None


@pytest.mark.parametrize(("candidate", "stable"), [(0.0, 0.0), (0.05, 0.05), (0.01, 0.05), (1.0, 1.0)])
def test_a_candidate_that_is_no_worse_does_not_trip(candidate: float, stable: float) -> None:
    watched, generator = Watched(), random.Random(6)
    for _ in range(500):
        failed = sum(generator.random() < candidate for _ in range(2))
        stable_failed = sum(generator.random() < stable for _ in range(38))
        watched.batch(2 - failed, failed, 38 - stable_failed, stable_failed)
    assert watched.guard.tripped is None


def test_an_excess_within_the_margin_does_not_trip_and_one_beyond_it_does() -> None:
    within, beyond = (Watched(Guard(margin=0.1)) for _ in range(2))
    for _ in range(100):
        within.batch(19, 1, 80, 0)
        beyond.batch(15, 5, 80, 0)
    assert within.guard.tripped is None
    assert beyond.guard.tripped is not None
    assert "more than stable's rate plus 10.00%" in beyond.guard.tripped


def test_a_stricter_level_needs_more_failures() -> None:
    def failures(level: float) -> int:
        watched, number = Watched(Guard(level=level)), 0
        while watched.guard.tripped is None:
            number += 1
            watched.batch(0, 1, 1, 0)
        return number

    assert failures(0.05) < failures(0.001) < failures(1e-9)


def test_failures_without_requests_to_stable_prove_nothing() -> None:
    watched = Watched()
    for _ in range(1_000):
        watched.batch(0, 10, 0, 0)
    assert watched.guard.tripped is None


def test_it_looks_by_the_clock_and_not_when_something_fails() -> None:
    watched = Watched()
    for _ in range(50):
        watched.guard.observe(0, 1, 19, 0)
    assert watched.said == []
    watched.batch(0, 1, 19, 0)
    assert ["failed 51 of 51" in said for said in watched.said] == [True]


def test_what_tripped_stays_tripped_with_its_first_reason() -> None:
    watched = Watched()
    watched.guard.trip("its run hangs")
    watched.guard.trip("another reason")
    for _ in range(100):
        watched.batch(0, 1, 19, 0)
    for _ in range(100):
        watched.batch(1_000, 0, 19_000, 19_000)
    assert watched.guard.tripped == "its run hangs"
    assert watched.said == ["its run hangs"]


def test_a_trip_that_was_kept_is_not_said_again() -> None:
    watched = Watched(tripped="it failed before this process began")
    for _ in range(100):
        watched.batch(0, 1, 19, 0)
    assert (watched.guard.tripped, watched.said) == ("it failed before this process began", [])


def test_a_guard_that_is_off_heeds_a_hang_and_nothing_else() -> None:
    watched = Watched(Guard(enabled=False))
    for _ in range(100):
        watched.batch(0, 10, 190, 0)
    assert watched.said == []
    watched.guard.trip("its run hangs")
    assert watched.said == ["its run hangs"]


def test_a_trip_outlives_its_process_and_is_seen_by_others(tmp_path: Path) -> None:
    trips, other = Trips(tmp_path), Trips(tmp_path)
    trips.keep("churn", 7, 2, "fails everything")
    trips.keep("churn", 7, 2, "another reason")
    trips.keep("churn-eu", 7, 3, "hangs")
    for reader in (trips, other, Trips(tmp_path)):
        reader.read()
        assert reader.of("churn", 7) == {2: "fails everything"}
        assert reader.of("churn-eu", 7) == {3: "hangs"}
        assert reader.of("fraud", 7) == {}
    assert list((tmp_path / "private").iterdir()) == []


def test_a_new_generation_begins_anew_and_forgets_the_older_ones(tmp_path: Path) -> None:
    trips = Trips(tmp_path)
    trips.keep("churn", 7, 2, "fails everything")
    trips.keep("churn", 9, 4, "hangs")
    trips.keep("fraud", 1, 1, "hangs")
    assert trips.of("churn", 8) == {}
    trips.read()
    assert sorted(path.name for path in (tmp_path / "trips").iterdir()) == ["churn.9.4", "fraud.1.1"]
    assert trips.of("churn", 7) == {}
    trips.read()
    assert trips.of("churn", 9) == {4: "hangs"}


@pytest.mark.parametrize("broken", ["trips", "private"])
def test_a_disk_that_refuses_keeps_nothing_and_stops_nothing(
    tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / broken).write_bytes(b"a file where a folder must be")
    trips = Trips(tmp_path)
    trips.keep("churn", 7, 2, "fails everything")
    assert "is not kept on disk" in caplog.text
    assert trips.of("churn", 7) == {2: "fails everything"}
    other = Trips(tmp_path)
    other.read()
    assert other.of("churn", 7) == {}
    assert trips.of("churn", 8) == {}


def test_a_full_disk_leaves_no_half_written_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trips = Trips(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))
    try:
        trips.keep("churn", 7, 2, "fails everything")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in caplog.text
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert trips.of("churn", 7) == {2: "fails everything"}


def test_notes_that_are_none_are_passed_over_and_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trips = Trips(tmp_path)
    trips.keep("churn", 7, 2, "hangs")
    for name in ("churn.7", "churn.x.2", "churn.7.2.bak", "churn.7.-1"):
        (tmp_path / "trips" / name).write_bytes(b"?")
    (tmp_path / "trips" / "churn.7.9").mkdir()
    (tmp_path / "trips" / "churn.7.5").write_bytes(b"\xff\xfe" * 10_000)
    (tmp_path / "trips" / "churn.7.6").write_bytes(b"")
    with caplog.at_level("WARNING"):
        trips.read()
        trips.read()
    assert len([record for record in caplog.records if "is passed over" in record.message]) == 5
    found = trips.of("churn", 7)
    assert found.keys() == {2, 5, 6}
    assert found[2] == "hangs"
    assert len(found[5]) < 5_000
    assert "note of why is empty" in found[6]


@pytest.mark.parametrize("name", ["../etc", "a/b", "*", ""])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    trips = Trips(tmp_path)
    with pytest.raises(InvalidInputError):
        trips.keep(name, 1, 1, "x")
    with pytest.raises(InvalidInputError):
        trips.of(name, 1)
