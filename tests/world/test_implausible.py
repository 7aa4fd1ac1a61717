"""A window of numbers that no pod counts is left out: it keeps no tick from looking, and no candidate from its end."""

import json
from typing import Any

import pytest

from shared.rollout.endpoint import ENDPOINT_ID
from shared.rollout.machine import RolloutState
from shared.store.documents import checked_document
from shared.store.ports import BlobContainer, Container
from shared.telemetry.window import Window, window_blob_name
from tests.world.strategies import rollout, run_until, start, world_with
from tests.world.world import ENDPOINT, World

MANY = 2**60


def odd(world: World, **fields: Any) -> bytes:
    """A window of another pod's under the plan in force."""
    now = world.clock.now().isoformat()
    said = {"endpoint": ENDPOINT, "pod": "odd", "sequence": 0, "generation": world.endpoint().generation}
    return json.dumps({**said, "started_at": now, "ended_at": now, "loaded": [1, 2], "versions": {}, **fields}).encode()


@pytest.mark.parametrize(
    "fields",
    [
        {"versions": {"2": {"requests": MANY}}},
        {"versions": {"2": {"requests": 10, "latency_ms": {"5": MANY}}}},
        {"versions": {"2": {"requests": 10, "latency_ms": {"5": -10}}}},
        {"versions": {"2": {"requests": 10, "latency_ms": {"999999": 10}}}},
        {"versions": {"2": {"requests": 10, "predictions": {"a": MANY}}}},
        {"versions": {"2": {"requests": 10, "predictions": {"a" * 700_000: 1}}}},
        {"versions": {"2": {"requests": 10, "shadow": {"mirrored": MANY}}}},
        {"versions": {str(version): {"requests": 1} for version in range(9_000)}},
        {"loaded": list(range(130_000))},
        {"sequence": MANY},
        {"generation": MANY},
        {"deaths": {"rollout_id": "r", "processes": {"2": MANY}}},
        {"deaths": {"rollout_id": "r" * 900_000, "processes": {"2": 1}}},
    ],
    ids=lambda fields: json.dumps(fields)[:60],
)
def test_a_window_that_no_pod_counts_keeps_no_failing_candidate_in_traffic(fields: dict[str, Any]) -> None:
    world = world_with()
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    data = odd(world, **fields)
    sequence = Window.model_validate_json(data).sequence
    world.blobs.put(BlobContainer.TELEMETRY, window_blob_name(ENDPOINT, world.clock.now(), "odd", sequence), data, {})
    before = rollout(world).tick
    world.run(seconds=3)
    assert rollout(world).tick > before
    assert "odd" not in rollout(world).progress.pods
    body = world.documents.held[Container.ENDPOINTS, ENDPOINT, ENDPOINT_ID].body
    assert len(checked_document(Container.ENDPOINTS, body).text) < 100_000
    world.pod.errors[2] = 0.5
    run_until(world, RolloutState.ROLLED_BACK)
