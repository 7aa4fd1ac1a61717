"""What a call counts and lists: each window once, however late, and no hour that needs no look."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from shared.budgets.service import BudgetService
from shared.budgets.sums import SUMS_ID, RequestSums
from shared.rollout.endpoint import Endpoint
from shared.store.outbox import Outbox
from shared.store.ports import BlobContainer, BlobInfo, Container
from shared.store.repository import Repository
from shared.telemetry.evidence import ASKED
from shared.telemetry.window import VersionCounts, Window, window_blob_name
from tests.world.fakes import FakeBlobs, FakeClock, FakeDocuments, FakeQueues, Fuse

START = datetime(2026, 11, 21, 8, 2, tzinfo=UTC)


class Listed(FakeBlobs):
    """Tells how many names were taken of its lists."""

    taken = 0

    def list(self, container: BlobContainer, prefix: str = "") -> Iterator[BlobInfo]:
        for info in super().list(container, prefix):
            self.taken += 1
            yield info


class Counted:
    """An endpoint, what its pods wrote, and who counts it."""

    def __init__(self) -> None:
        fuse = Fuse()
        self.clock = FakeClock(START)
        self.blobs = Listed(fuse, self.clock)
        self.documents = FakeDocuments(fuse)
        outbox = Outbox(self.documents, self.blobs, FakeQueues(fuse, self.clock), self.clock)
        endpoints = Repository(Endpoint, self.documents, outbox)
        endpoints.create(Endpoint(endpoint="m"))
        self.budgets = BudgetService(
            endpoints=endpoints, documents=self.documents, blobs=self.blobs, clock=self.clock, monotonic=lambda: 0.0
        )
        self.budgets.count()

    def write(self, pod: str, sequence: int, ended_at: datetime) -> None:
        one = Window(
            endpoint="m",
            pod=pod,
            sequence=sequence,
            generation=1,
            started_at=ended_at,
            ended_at=ended_at,
            loaded=[1],
            versions={1: VersionCounts(requests=10, errors=1)},
        )
        name = window_blob_name("m", ended_at, pod, sequence)
        self.blobs.put(BlobContainer.TELEMETRY, name, one.model_dump_json().encode(), {})

    @property
    def sums(self) -> RequestSums:
        stored = self.documents.get(Container.ENDPOINTS, "m", SUMS_ID)
        assert stored is not None
        return RequestSums.model_validate(stored.body)

    def counted(self) -> int:
        return sum(one.requests for one in self.sums.hours.values())


def test_windows_that_come_up_to_two_hours_late_count_once_each_whatever_came_before_them() -> None:
    counted, rng = Counted(), random.Random(4)
    # By the minute that they come in: some of every pod late, and what follows no earlier than what is before it.
    arrivals: dict[int, list[tuple[str, int, datetime]]] = {}
    for pod in range(12):
        at = 0
        for sequence, minute in enumerate(range(1 + pod * 7, 200)):
            at = max(at, minute + (rng.randrange(10, 118) if rng.random() < 0.01 else 0))
            arrivals.setdefault(at, []).append((f"pod-{pod}", sequence, START + timedelta(minutes=minute)))
    # Pods that are gone when their last window comes.
    for number, late in enumerate(range(1, 120, 4)):
        arrivals.setdefault(30 + late, []).append((f"gone-{number}", 0, START + timedelta(minutes=30)))
    for minute in range(1, 420):
        counted.clock.pass_s(60)
        for arrival in arrivals.get(minute, []):
            counted.write(*arrival)
        counted.budgets.count()
        if minute % 50 == 0:
            counted.budgets.count()
    assert counted.counted() == 10 * sum(map(len, arrivals.values()))


def test_a_call_that_keeps_up_lists_the_latest_hours_and_seldom_one_before() -> None:
    counted, taken = Counted(), list[int]()
    for minute in range(1, 240):
        counted.clock.pass_s(60)
        for pod in range(5):
            counted.write(f"pod-{pod}", minute - 1, counted.clock.now())
        counted.blobs.taken = 0
        counted.budgets.count()
        taken.append(counted.blobs.taken)
    assert counted.counted() == 10 * 5 * 239
    # Five pods write 300 windows an hour; four hours of them had been listed each time.
    assert max(taken) <= 5 * (60 + 60 + 6)
    assert sum(taken[120:]) / len(taken[120:]) < 5 * 60 * 0.8
    assert counted.sums.whole_at == counted.clock.now()


def test_a_call_without_time_for_the_names_does_not_say_that_all_is_counted() -> None:
    counted = Counted()
    whole_at = counted.sums.whole_at
    counted.clock.pass_s(60)
    for pod in range(1_200):
        counted.write(f"pod-{pod:04d}", 0, counted.clock.now())
    ticks = iter([0.0, 0.0])
    outbox = Outbox(counted.documents, counted.blobs, FakeQueues(Fuse(), counted.clock), counted.clock)
    hurried = BudgetService(
        endpoints=Repository(Endpoint, counted.documents, outbox),
        documents=counted.documents,
        blobs=counted.blobs,
        clock=counted.clock,
        monotonic=lambda: next(ticks, 1e9),
    )
    hurried.count()
    assert 0 < counted.counted() <= 10 * ASKED
    assert counted.sums.whole_at == whole_at
    counted.budgets.count()
    assert counted.counted() == 10 * 1_200
    assert counted.sums.whole_at == counted.clock.now()
