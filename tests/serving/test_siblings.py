"""What the processes of one pod, which share its disk, take over from each other."""

from pathlib import Path

import pytest
from aks_serving.guard import Trips

from tests.serving import models
from tests.serving.conftest import Start, eventually
from tests.serving.fakes import MemoryStorage

pytestmark = pytest.mark.anyio

ONE, TWO = models.scaler(1.0), models.scaler(2.0)


async def test_what_tripped_elsewhere_is_heard_of_while_storage_is_down(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    storage.put(ONE, TWO)
    storage.publish(models.plan(1, *models.canary((1, ONE), (2, TWO), 5_000)))
    async with start() as running:
        await running.reload()
        storage.down = True
        assert running.server.servings["churn"].tripped == {}
        Trips(tmp_path / "cache").keep("churn", 1, 2, "it failed elsewhere")
        await eventually(lambda: running.server.servings["churn"].tripped == {2: "it failed elsewhere"})
    async with start() as running:
        # Of the next process the plan and the trip are those of the disk.
        await eventually(lambda: "churn" in running.server.servings)
        assert running.server.servings["churn"].tripped == {2: "it failed elsewhere"}
