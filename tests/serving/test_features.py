"""Feature windows: what the server counts by a profile that validation made is what was sent, row by row."""

import asyncio
import json
import threading
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from aks_serving.counts import VersionTally
from aks_serving.features import MAX_HELD_BYTES, Features
from aks_serving.model import Signature, TensorSpec
from aks_serving.profiles import beside
from aks_serving.taking import Batch, FeatureCounter
from numpy.typing import NDArray

from shared.core.canonical import canonical_json, digest_of_bytes
from shared.core.clock import SystemClock
from shared.drift.sides import check_counts
from shared.registry.manifest import Manifest, Task
from shared.registry.policy import ValidationPolicy
from shared.routing.plan import Role, Route
from shared.telemetry.features import FeatureCounts, FeatureWindow, beside_key
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.profile import NumberFeature, Profile
from shared.telemetry.subjects import grouped
from shared.validation.sandbox import ModelFiles, SandboxLimits, run_validation
from tests.serving import models
from tests.serving.conftest import Running, Start, eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.processes import Account, Launch
from tests.support import waiting
from tests.support.plain import NO_TLS
from tests.unit.validation.drops import npz

pytestmark = pytest.mark.anyio

ONE, TWO, HALF_MORE = models.scaler(1.0), models.scaler(2.0), models.scaler(1.5)
ROWS = np.random.default_rng(5).normal(size=(400, 2)).astype(np.float32)

type Table = NDArray[np.float32]


@pytest.fixture(scope="module")
def profile_data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The profile that the sandbox leaves of ONE."""
    folder = tmp_path_factory.mktemp("profile")
    (folder / "work").mkdir()
    (folder / "model").write_bytes(ONE)
    (folder / "rows").write_bytes(npz({"x": ROWS, "label": ROWS}))
    validation = run_validation(
        model=ModelFiles(path=folder / "model"),
        validation=folder / "rows",
        reference=None,
        manifest=Manifest(task=Task.REGRESSION, feature_names=("age", "sum")),
        policy=ValidationPolicy(),
        workdir=folder / "work",
        limits=SandboxLimits(),
    )
    assert validation.profile is not None, validation.report
    data = validation.profile.path.read_bytes()
    assert digest_of_bytes(data) == validation.profile.digest
    return data


@pytest.fixture
def profile(profile_data: bytes) -> Profile:
    found = Profile.model_validate_json(profile_data)
    assert [feature.name for feature in found.features] == ["age", "sum", "prediction"]
    return found


def _watched(route: Route, profile_data: bytes) -> Route:
    return route.model_copy(update={"profile_digest": digest_of_bytes(profile_data)})


def _stable(profile_data: bytes, version: int = 1, data: bytes = ONE) -> Route:
    return _watched(models.route(version, data), profile_data)


def _publish(storage: MemoryStorage, profile_data: bytes, *routes: Route, generation: int = 1) -> None:
    storage.put(ONE, TWO, HALF_MORE, profile_data)
    storage.publish(models.plan(generation, *(routes or (_stable(profile_data),))))


def _counted(profile: Profile, rows: Table, factor: float = 1.0) -> FeatureCounts:
    """As the rows are counted at once."""
    tally = FeatureTally(profile)
    tally.saw({"x": rows, "y": rows * np.float32(factor)}, len(rows))
    return tally.take()


def _told(storage: MemoryStorage) -> list[FeatureWindow]:
    """The windows, but for whose the rows are."""
    return [
        window.model_copy(update={"versions": {key: _of_nobody(one) for key, one in window.versions.items()}})
        for window in storage.feature_windows()
    ]


def _of_nobody(counts: FeatureCounts) -> FeatureCounts:
    return counts.model_copy(update={"subjects": []})


def _sum(storage: MemoryStorage, key: str = "1:stable") -> FeatureCounts:
    return FeatureCounts.sum_of([one.versions[key] for one in storage.feature_windows() if key in one.versions])


def _total(storage: MemoryStorage, key: str = "1:stable") -> FeatureCounts:
    return _of_nobody(_sum(storage, key))


def _fates(running: Running, version: int = 1, role: Role = Role.STABLE) -> Mapping[str, int]:
    tally = running.server.facts().totals["churn"].get((version, str(role)))
    return {} if tally is None else tally.looked


async def _ask(running: Running, rows: Table, **fields: Any) -> None:
    answer = await running.predict(rows.tolist(), **fields)
    assert answer.status_code == 200, answer.text


async def test_every_row_is_counted_whatever_form_it_came_in(
    start: Start, storage: MemoryStorage, profile: Profile, profile_data: bytes
) -> None:
    _publish(storage, profile_data)
    rows = np.random.default_rng(1).normal(0.5, 2.0, size=(300, 2)).astype(np.float32)
    async with start() as running:
        await running.reload()
        await asyncio.gather(*(_ask(running, rows[at : at + 1]) for at in range(100)))
        for at in range(100, 200, 50):
            await _ask(running, rows[at : at + 50])
        tensor = {"name": "x", "datatype": "FP32", "shape": [50, 2], "data": rows[200:250].ravel().tolist()}
        assert (await running.infer(tensor)).status_code == 200
        data = rows[250:].tobytes()
        sized = {"name": "x", "datatype": "FP32", "shape": [50, 2], "parameters": {"binary_data_size": len(data)}}
        head = json.dumps({"inputs": [sized]}).encode()
        answer = await running.client.post(
            "/v2/models/churn/infer",
            content=head + data,
            headers={"inference-header-content-length": str(len(head))},
        )
        assert answer.status_code == 200
        assert _fates(running) == {"counted": 300}
        metrics = (await running.client.get("/metrics")).text
        labels = 'model="churn",version="1",variant="stable",outcome="counted"'
        assert f"model_feature_rows_total{{{labels}}} 300" in metrics
    assert _total(storage) == _counted(profile, rows)
    (window,) = storage.feature_windows()
    assert (window.endpoint, window.pod, window.sequence, window.share) == ("churn", "pod", 0, 1.0)
    (name,) = (name for name in storage.blobs if "/features/" in name)
    assert name == f"churn/features/{window.ended_at:%Y-%m-%dT%H-%M}/pod-0000000000.json"


async def test_a_pinned_request_a_refused_one_and_the_rehearsal_count_nowhere(
    start: Start, storage: MemoryStorage, profile_data: bytes
) -> None:
    _publish(storage, profile_data)
    async with start(rehearsal_rounds=3) as running:
        await running.reload()
        await _ask(running, ROWS[:10], model_version=1)
        assert (await running.predict([[1.0, 2.0, 3.0]])).status_code == 400
        assert _fates(running) == {}
    assert storage.feature_windows() == []


async def test_a_shadow_is_counted_by_what_it_answers(
    start: Start, storage: MemoryStorage, profile: Profile, profile_data: bytes
) -> None:
    shadow = models.route(2, TWO, role=Role.SHADOW, weight=0).model_copy(update={"mirror_bp": 10_000})
    _publish(storage, profile_data, _stable(profile_data), _watched(shadow, profile_data))
    async with start() as running:
        await running.reload()
        # Together: each is then told of its own rows of the batch.
        asks = (_ask(running, ROWS[at : at + 10], user_id=f"user {at}") for at in range(0, 30, 10))
        await asyncio.gather(*asks)
        await eventually(lambda: _fates(running, 2, Role.SHADOW) == {"counted": 30})
    assert _total(storage, "2:shadow") == _counted(profile, ROWS[:30], 2.0)
    assert _total(storage) == _counted(profile, ROWS[:30])
    wanted = grouped([f"user {at}" for at in range(0, 30, 10)], [10] * 3).tolist()
    assert _sum(storage).subjects == _sum(storage, "2:shadow").subjects == wanted


async def test_a_swap_of_versions_parts_the_rows_and_loses_none(
    start: Start, storage: MemoryStorage, profile: Profile, profile_data: bytes
) -> None:
    _publish(storage, profile_data)
    async with start() as running:
        await running.reload()
        await _ask(running, ROWS[:40])
        _publish(storage, profile_data, _stable(profile_data, 2, TWO), generation=2)
        await running.reload()
        await _ask(running, ROWS[40:100])
    (window,) = _told(storage)
    assert window.versions == {
        "1:stable": _counted(profile, ROWS[:40]),
        "2:stable": _counted(profile, ROWS[40:100], 2.0),
    }


async def test_another_profile_of_one_version_has_a_window_of_its_own(
    start: Start, storage: MemoryStorage, profile: Profile, profile_data: bytes
) -> None:
    other = profile.model_copy(update={"features": profile.features[:1]})
    other_data = canonical_json(other.model_dump(mode="json"))
    _publish(storage, profile_data)
    async with start() as running:
        await running.reload()
        await _ask(running, ROWS[:40])
        storage.put(other_data)
        _publish(storage, profile_data, _stable(other_data), generation=2)
        await running.reload()
        await _ask(running, ROWS[40:100])
    windows = _told(storage)
    assert sorted(window.sequence for window in windows) == [0, 1]
    found = {window.versions["1:stable"].profile: window.versions["1:stable"] for window in windows}
    assert found == {profile.id: _counted(profile, ROWS[:40]), other.id: _counted(other, ROWS[40:100])}


async def test_rows_are_told_apart_by_the_groups_of_their_subjects_and_nobody_is_named(
    start: Start, storage: MemoryStorage, profile: Profile, profile_data: bytes
) -> None:
    _publish(storage, profile_data)
    users = [f"user-{number % 7}" for number in range(30)]
    async with start() as running:
        await running.reload()
        await asyncio.gather(*(_ask(running, ROWS[at : at + 1], user_id=user) for at, user in enumerate(users)))
        await _ask(running, ROWS[30:40], user_id="user-0")
        await asyncio.gather(*(_ask(running, ROWS[at : at + 1]) for at in range(40, 50)))
    found = _sum(storage)
    wanted = grouped([*users, "user-0"], [*[1] * 30, 10]).tolist()
    assert (found.rows, found.subjects) == (50, wanted)
    # One row alone of a request without a subject stands for itself.
    assert sum(found.subjects) == 40
    assert not any("user-" in data.decode() for name, data in storage.blobs.items() if "/features/" in name)
    assert _total(storage) == _counted(profile, ROWS[:50])


async def test_a_request_of_many_rows_and_no_subject_stands_for_one(
    start: Start, storage: MemoryStorage, profile_data: bytes
) -> None:
    _publish(storage, profile_data)
    async with start() as running:
        await running.reload()
        await _ask(running, ROWS[:64])
    assert sorted(_sum(storage).subjects)[-2:] == [0, 64]


async def test_of_a_share_of_the_rows_the_subjects_are_those_of_the_rows_that_were_chosen(profile: Profile) -> None:
    kept: dict[str, bytes] = {}
    features = Features(pod="pod", clock=SystemClock(), keep=kept.__setitem__, share=0.5, seed=3)
    counter = FeatureCounter(features, "churn", "1:stable", profile, ["y"])
    tally = VersionTally()
    for _ in range(5):
        counter.saw(tally, {"x": ROWS}, [ROWS], (["one", None, "two"], [100, 1, 299]))
        counter.saw(tally, {"x": ROWS[:8]}, [ROWS[:8]], (["one"], ()))
        counter.saw(tally, {"x": ROWS[:8]}, [ROWS[:8]], (["one", "two"], [4, 5]))
    await features.close()
    (window,) = [FeatureWindow.model_validate_json(data) for data in kept.values()]
    counts = window.versions["1:stable"]
    one, two = (int(grouped([name], [1]).argmax()) for name in ("one", "two"))
    assert 900 < counts.rows < 1_140
    assert 220 < counts.subjects[one] < 320
    assert 680 < counts.subjects[two] < 840
    check_counts(profile, counts)


async def test_subjects_that_cannot_be_read_lose_no_row(profile: Profile, caplog: pytest.LogCaptureFixture) -> None:
    kept: dict[str, bytes] = {}
    features = Features(pod="pod", clock=SystemClock(), keep=kept.__setitem__)
    counter = FeatureCounter(features, "churn", "1:stable", profile, ["y"])
    counter.saw(VersionTally(), {"x": ROWS}, [ROWS], (["\udc80"], ()))
    await features.close()
    (window,) = [FeatureWindow.model_validate_json(data) for data in kept.values()]
    assert window.versions["1:stable"] == _counted(profile, ROWS)
    assert "the subjects of 400 rows are lost" in caplog.text


def _rebinned(profile: Profile) -> Profile:
    """A profile of the same columns in other bins."""
    first = profile.features[0]
    assert isinstance(first, NumberFeature)
    moved = first.model_copy(update={"edges": tuple(edge + 0.1 for edge in first.edges)})
    return profile.model_copy(update={"features": (moved, *profile.features[1:])})


async def test_while_a_candidate_has_another_profile_stable_is_counted_by_both(
    start: Start, storage: MemoryStorage, profile: Profile, profile_data: bytes
) -> None:
    other = _rebinned(profile)
    other_data = canonical_json(other.model_dump(mode="json"))
    storage.put(other_data)
    candidate = _watched(models.route(2, TWO, role=Role.CANDIDATE, weight=0), other_data)
    _publish(storage, profile_data)
    async with start() as running:
        await running.reload()
        await _ask(running, ROWS[:40])
        _publish(storage, profile_data, _stable(profile_data), candidate, generation=2)
        await running.reload()
        await _ask(running, ROWS[40:100])
        # Another share is no other counter.
        _publish(storage, profile_data, _stable(profile_data), candidate, generation=3)
        await running.reload()
        await _ask(running, ROWS[100:150])
        _publish(storage, profile_data, generation=4)
        await running.reload()
        await _ask(running, ROWS[150:])
        assert _fates(running) == {"counted": 400}
    key = beside_key("1:stable", other.id)
    assert _total(storage) == _counted(profile, ROWS)
    assert _total(storage, key) == _counted(other, ROWS[40:150])
    assert {found for window in storage.feature_windows() for found in window.versions} == {"1:stable", key}
    assert len(storage.feature_windows()) == 3


async def test_a_stable_version_without_a_profile_is_counted_by_its_shadows(
    start: Start, storage: MemoryStorage, profile: Profile, profile_data: bytes
) -> None:
    shadow = models.route(2, TWO, role=Role.SHADOW, weight=0).model_copy(update={"mirror_bp": 10_000})
    _publish(storage, profile_data, models.route(1, ONE), _watched(shadow, profile_data))
    storage.outages[digest_of_bytes(profile_data)] = 2
    async with start(feature_window_s=0.05) as running:
        await running.reload()

        async def is_counted() -> bool:
            await _ask(running, ROWS[:1])
            return "counted" in _fates(running)

        await eventually(is_counted)
        rows = _fates(running)["counted"]
    found = _total(storage, beside_key("1:stable", profile.id))
    assert found == _counted(profile, np.repeat(ROWS[:1], rows, axis=0))


def test_what_counts_the_same_or_takes_other_inputs_is_not_counted_twice(profile: Profile) -> None:
    signature = Signature(inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 2)),), outputs=())
    wider = Signature(inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 3)),), outputs=())
    other = _rebinned(profile)
    answers = profile.model_copy(update={"features": profile.features[:2]})
    assert beside(profile, signature, [(profile, signature), (answers, signature), (other, wider)]) == ()
    assert beside(profile, signature, [(other, signature), (other, signature)]) == (other,)
    assert beside(None, signature, [(profile, signature)]) == (profile,)


async def test_rows_that_are_dropped_are_dropped_for_both_profiles(profile: Profile) -> None:
    kept: dict[str, bytes] = {}
    other = _rebinned(profile)
    features = Features(pod="pod", clock=SystemClock(), keep=kept.__setitem__, max_behind_rows=2_048)
    counter = FeatureCounter(features, "churn", "1:stable", profile, ["y"], beside=(other,))
    for _ in range(10):
        counter.saw(VersionTally(), {"x": ROWS}, [ROWS])
    await features.close()
    (window,) = [FeatureWindow.model_validate_json(data) for data in kept.values()]
    key, rows = beside_key("1:stable", other.id), np.concatenate([ROWS] * 6)
    assert window.versions == {"1:stable": _counted(profile, rows), key: _counted(other, rows)}
    assert window.dropped == {"1:stable": 1_600, key: 1_600}


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(b"{", id="no JSON"),
        pytest.param(b'{"rows": 1}', id="no profile"),
        pytest.param(None, id="not there"),
        pytest.param("z", id="of another model"),
    ],
)
async def test_a_profile_that_cannot_be_used_keeps_no_version_from_serving(
    start: Start,
    storage: MemoryStorage,
    profile_data: bytes,
    wrong: bytes | str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = profile_data.replace(b'"input":"x"', b'"input":"z"') if isinstance(wrong, str) else wrong or b"gone"
    storage.put(ONE, *([] if wrong is None else [data]))
    storage.publish(models.plan(1, _stable(data)))
    async with start() as running:
        await running.reload()
        await _ask(running, ROWS[:10])
        assert _fates(running) == {"without_profile": 10}
    assert storage.feature_windows() == []
    assert "the features of version 1 are not counted" in caplog.text


async def test_a_start_from_the_disk_alone_counts(
    start: Start, storage: MemoryStorage, profile: Profile, profile_data: bytes
) -> None:
    _publish(storage, profile_data)
    async with start() as running:
        await running.reload()
        _publish(storage, profile_data, generation=2)
        await running.reload()
    storage.down = True
    async with start(pod="again") as running:
        await eventually(lambda: "churn" in running.server.servings)
        await _ask(running, ROWS[:40])
        storage.down = False
    assert _total(storage) == _counted(profile, ROWS[:40])


async def test_what_was_counted_is_sent_once_storage_is_back(
    start: Start, storage: MemoryStorage, profile: Profile, profile_data: bytes
) -> None:
    _publish(storage, profile_data)
    async with start(feature_window_s=0.05) as running:
        await running.reload()
        storage.down = True
        await _ask(running, ROWS[:40])
        await _ask(running, ROWS[40:80])
        storage.down = False
        await eventually(lambda: sum(w.versions["1:stable"].rows for w in storage.feature_windows()) == 80)
    assert _total(storage) == _counted(profile, ROWS[:80])


async def test_a_share_of_the_rows_is_counted_and_stated(
    start: Start, storage: MemoryStorage, profile_data: bytes
) -> None:
    _publish(storage, profile_data)
    async with start(feature_share=0.25) as running:
        await running.reload()
        for _ in range(20):
            await _ask(running, ROWS)
        fates = _fates(running)
    assert fates["counted"] + fates["left_out"] == 8_000
    assert 1_700 < fates["counted"] < 2_300  # 7 standard deviations
    (window,) = storage.feature_windows()
    assert (window.share, window.versions["1:stable"].rows) == (0.25, fates["counted"])


async def test_a_share_of_nothing_counts_nothing(start: Start, storage: MemoryStorage, profile_data: bytes) -> None:
    _publish(storage, profile_data)
    async with start(feature_share=0.0) as running:
        await running.reload()
        await _ask(running, ROWS)
        assert _fates(running) == {}
    assert storage.feature_windows() == []


async def test_a_profile_that_storage_did_not_give_is_sought_until_it_does(
    start: Start, storage: MemoryStorage, profile: Profile, profile_data: bytes
) -> None:
    _publish(storage, profile_data)
    storage.outages[digest_of_bytes(profile_data)] = 2
    async with start(feature_window_s=0.05) as running:
        await running.reload()
        await _ask(running, ROWS[:1])
        assert _fates(running) == {"without_profile": 1}

        async def is_counted() -> bool:
            await _ask(running, ROWS[:1])
            return "counted" in _fates(running)

        await eventually(is_counted)
        counted = _fates(running)["counted"]
    assert _total(storage) == _counted(profile, np.repeat(ROWS[:1], counted, axis=0))


class Held(threading.Event):
    """Says whether anybody who waits for it went on."""

    is_over = False

    def wait(self, timeout: float | None = None) -> bool:
        found = super().wait(timeout)
        self.is_over = True
        return found


async def test_storage_that_hangs_on_a_profile_keeps_neither_windows_nor_a_stop_waiting(
    start: Start, storage: MemoryStorage, profile: Profile, profile_data: bytes
) -> None:
    other_data = canonical_json(_rebinned(profile).model_dump(mode="json"))
    digest = digest_of_bytes(other_data)
    storage.put(other_data)
    storage.outages[digest] = 1
    let_go = storage.held[digest] = Held()
    candidate = _watched(models.route(2, TWO, role=Role.CANDIDATE, weight=0), other_data)
    _publish(storage, profile_data, _stable(profile_data), candidate)
    async with start(feature_window_s=0.05) as running:
        await running.reload()
        reads = storage.artifact_reads
        await eventually(lambda: storage.artifact_reads > reads)
        await _ask(running, ROWS[:40])
        await eventually(lambda: storage.feature_windows() != [])
    assert _total(storage) == _counted(profile, ROWS[:40])
    assert not let_go.is_over, "the stop waited for storage"
    let_go.set()


async def test_what_was_counted_before_a_stop_that_cannot_wait_is_kept_and_says_what_was_not(
    profile: Profile, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = threading.Event()

    class Stuck(FeatureCounter):
        def fold(self, batch: Batch) -> None:
            assert let_go.wait(30), batch

    kept: dict[str, bytes] = {}
    features = Features(pod="pod", clock=SystemClock(), keep=kept.__setitem__)
    counter = FeatureCounter(features, "churn", "1:stable", profile, ["y"])
    tally = VersionTally()
    for _ in range(4):
        counter.saw(tally, {"x": ROWS}, [ROWS])
    await eventually(lambda: features.held_bytes == 2 * ROWS.nbytes)
    features.hand_over(Stuck(features, "churn", "2:stable", profile, ["y"]), Batch())
    closing = asyncio.create_task(features.close(within_s=0.5))
    await eventually(lambda: "400 rows could not be counted before the stop" in caplog.text)
    let_go.set()
    await closing
    (window,) = [FeatureWindow.model_validate_json(data) for data in kept.values()]
    assert window.versions == {"1:stable": _counted(profile, np.concatenate([ROWS] * 3))}
    assert window.dropped == {"1:stable": 400}


async def test_what_the_thread_cannot_keep_up_with_is_dropped_and_told(profile: Profile) -> None:
    """The event loop has no turn between the requests, so nothing that the thread counts is taken note of."""
    kept: dict[str, bytes] = {}
    features = Features(pod="pod", clock=SystemClock(), keep=kept.__setitem__, max_behind_rows=2_048)
    counter = FeatureCounter(features, "churn", "1:stable", profile, ["y"])
    tally = VersionTally()
    for _ in range(10):
        counter.saw(tally, {"x": ROWS}, [ROWS])
    assert tally.looked == {"counted": 2_400, "dropped": 1_600}
    await features.close()
    (window,) = [FeatureWindow.model_validate_json(data) for data in kept.values()]
    assert window.versions == {"1:stable": _counted(profile, np.concatenate([ROWS] * 6))}
    assert window.dropped == {"1:stable": 1_600}


async def test_who_asked_is_held_within_the_same_bound_as_what_was_asked(profile: Profile) -> None:
    features = Features(pod="pod", clock=SystemClock(), keep=lambda _name, _data: None)
    counter = FeatureCounter(features, "churn", "1:stable", profile, ["y"])
    row = ROWS[:1]
    for subject, held in ((None, 2 * row.nbytes), ("a" * 1_000, 4 * row.nbytes + 1_000)):
        counter.saw(VersionTally(), {"x": row}, [row], ((subject,), ()))
        assert features.held_bytes == held
    await features.close()


async def test_rows_of_many_versions_together_are_held_within_a_bound(profile: Profile) -> None:
    """Eight versions may keep their rows for later; those of the others are counted at once."""
    kept: dict[str, bytes] = {}
    features = Features(pod="pod", clock=SystemClock(), keep=kept.__setitem__)
    wide = np.zeros((950, 2_000), dtype=np.float32)
    one_bytes = wide.nbytes + wide[:, :2].nbytes
    assert 8 * one_bytes < MAX_HELD_BYTES < 9 * one_bytes
    tally = VersionTally()
    for version in range(12):
        counter = FeatureCounter(features, "churn", f"{version}:stable", profile, ["y"])
        counter.saw(tally, {"x": wide}, [wide[:, :2]])
    await eventually(lambda: features.held_bytes == 8 * one_bytes)
    await features.close(within_s=300)
    (window,) = [FeatureWindow.model_validate_json(data) for data in kept.values()]
    assert [counts.rows for counts in window.versions.values()] == [950] * 12


def test_two_workers_count_into_windows_of_their_own(
    account: Account, launch: Launch, profile: Profile, profile_data: bytes
) -> None:
    account.put(ONE, profile_data)
    account.publish(models.plan(1, _stable(profile_data)))
    server = launch(account.connection, SLIPWAY_WORKERS="2", SLIPWAY_FEATURE_WINDOW_S="0.3")
    waiting.eventually(lambda: server.generation() == 1 and server.ready(), what="the server is ready")
    for at in range(40):
        with httpx.Client(base_url=server.url, timeout=20, verify=NO_TLS) as client:
            assert client.post("/predict", json={"features": ROWS[at : at + 1].tolist()}).status_code == 200
    assert server.stop() == 0
    windows = account.feature_windows()
    assert len({window.pod for window in windows}) == 2
    assert len({(window.pod, window.sequence) for window in windows}) == len(windows)
    parts = [window.versions["1:stable"] for window in windows]
    assert FeatureCounts.sum_of(parts) == _counted(profile, ROWS[:40])
