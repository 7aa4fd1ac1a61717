"""The state of the detector of slow drift: what a document names is there, whatever is deleted beside it."""

import logging

import pytest

from shared.registry.drift_policy import DriftPolicy
from shared.store.ports import BlobContainer
from shared.watching.assessing import slow_detector
from shared.watching.documents import DriftReport
from shared.watching.slowly import Slow, store_state
from tests.world.fakes import FakeBlobs, FakeClock, Fuse
from tests.world.watched import Watched
from tests.world.world import MODEL


class DeletedBetween(FakeBlobs):
    """Where it is found that a state lies there already, somebody deletes it."""

    def touch(self, container: BlobContainer, name: str) -> bool:
        """See the port."""
        self.held.pop((container, name), None)
        return super().touch(container, name)


def test_a_state_that_is_deleted_while_it_is_named_again_is_stored_again() -> None:
    watched = Watched()
    detector = slow_detector(watched.profile, DriftPolicy())
    slow = Slow(kept=detector, told=detector, until=watched.now)
    report = DriftReport(id="drift-1-stable", model=MODEL, endpoint=MODEL, version=1, role="stable")
    blobs = DeletedBetween(Fuse(), FakeClock())
    name = store_state(blobs, report, slow)
    assert store_state(blobs, report, slow) == name
    assert (BlobContainer.REPORTS, name) in blobs.held


def test_that_a_state_is_gone_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(policy=DriftPolicy(span_h=2))
    for _ in range(60):
        watched.hour(rows=20)
        if name := watched.report().slow_blob:
            break
    assert name
    del watched.world.blobs.held[BlobContainer.REPORTS, name]
    with caplog.at_level(logging.WARNING):
        watched.hour(rows=20)
    assert f"{name} is gone" in caplog.text
