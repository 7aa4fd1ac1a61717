"""That a caller is gone when its answer is sent is nothing that the log tells of."""

import logging

import pytest
from aks_serving.grpc.calls import SERVER_ERROR, status_for
from grpc._cython import cygrpc

from tests.serving import models
from tests.serving.fakes import MemoryStorage
from tests.serving.grpc.conftest import Reach

pytestmark = pytest.mark.anyio

GRPC_LOG = logging.getLogger("grpc._cython.cygrpc")


async def test_of_what_grpc_logs_the_answers_that_could_not_be_sent_are_left_out(
    reach: Reach, storage: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """When it hears of a passed deadline too late cannot be forced from outside: its own error stands in."""
    storage.publish(models.plan(1))
    async with reach():
        for error in (cygrpc.ExecuteBatchError("an answer"), cygrpc.InternalError("a defect"), ValueError("another")):
            GRPC_LOG.error("raised: %s", error, exc_info=error)
        GRPC_LOG.error("and one without")
    assert [message for message in caplog.messages if message.startswith(("raised", "and one"))] == [
        "raised: a defect",
        "raised: another",
        "and one without",
    ]


def test_a_method_that_could_not_send_has_nothing_told_of_it(caplog: pytest.LogCaptureFixture) -> None:
    assert status_for(cygrpc.ExecuteBatchError("a part of a stream")) is SERVER_ERROR
    assert caplog.records == []
    assert status_for(ValueError("a defect")) is SERVER_ERROR
    assert caplog.messages == ["a call went wrong"]
