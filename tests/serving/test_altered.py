"""Artifacts are what their digests say, or they are not loaded: in storage, on the way, and on the pod's disk."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from aks_serving.artifacts import Artifacts
from aks_serving.cache import DiskCache

from shared.routing.plan import Signing
from tests.serving import models
from tests.serving.conftest import Start, eventually
from tests.serving.fakes import MemoryStorage
from tests.unit.signing import made

pytestmark = pytest.mark.anyio

OLD = models.scaler(1.0)
TABLE = models.numbers(5.0, 6.0, 7.0)
MODEL = models.lookup(("table.bin", 0, len(TABLE)))
_INDEX = {"datatype": "INT64", "shape": [1, 1], "data": [1]}
_FOUND = {"datatype": "FP32", "shape": [1, 1], "data": [6.0]}
GOLDEN = models.golden2([({"x": _INDEX}, {"y": _FOUND})], {"y": {"rtol": 1e-4, "atol": 1e-5}})
KEY = made.public_key(made.private_key())
SIGNATURE = made.signed({"model.onnx": made.digest(MODEL), "table.bin": made.digest(TABLE)})
FILES = {"model": MODEL, "external data 'table.bin'": TABLE, "golden rows": GOLDEN, "signature": SIGNATURE}
ROUTE = models.route(
    2,
    MODEL,
    golden=GOLDEN,
    external={"table.bin": TABLE},
    signing=Signing(digest=made.digest(SIGNATURE), trusted_keys=(KEY.pem,)),
)

HARMS: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "truncated": lambda data: data[:-1],
    "empty": lambda _: b"",
    "larger": lambda data: data + b"\0",
    "much larger": lambda data: data * 3,
    "another file": lambda _: OLD,
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("what", FILES)
async def test_a_file_altered_in_storage_is_refused_and_reported_and_the_last_good_version_goes_on(
    start: Start, storage: MemoryStorage, what: str, harm: str
) -> None:
    storage.put(OLD, *FILES.values())
    storage.artifacts[models.digest(FILES[what])] = HARMS[harm](FILES[what])
    storage.publish(models.plan(1, models.route(1, OLD)))
    async with start() as running:
        await running.reload()
        storage.publish(models.plan(2, ROUTE))
        reason = (await running.reload())["endpoints"]["churn"]["failed"]["2"]
        assert reason.startswith(f"altered: what storage has as the {what} is ")
        assert (await running.predict([[1, 1]])).json()["model_version"] == 1
    window = storage.windows()[-1]
    assert (window.loaded, window.failed) == ([1], {2: reason})


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("what", FILES)
async def test_a_file_altered_on_disk_is_not_used_and_is_fetched_again(
    start: Start, storage: MemoryStorage, tmp_path: Path, what: str, harm: str
) -> None:
    storage.put(*FILES.values())
    cached = tmp_path / "cache" / "artifacts" / models.digest(FILES[what])
    cached.parent.mkdir(parents=True)
    cached.write_bytes(HARMS[harm](FILES[what]))
    storage.publish(models.plan(1, ROUTE))
    async with start() as running:
        assert (await running.reload())["endpoints"]["churn"]["loaded"] == [2]
        assert (await running.predict([[1]])).json()["predictions"] == [[6.0]]
        assert cached.read_bytes() == FILES[what]


async def test_a_file_altered_on_disk_while_storage_is_down_is_waited_for_and_not_served(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    storage.put(*FILES.values())
    storage.publish(models.plan(1, ROUTE))
    async with start() as running:
        await running.reload()
        await eventually((tmp_path / "cache" / "plans" / "churn.json").exists)
    (tmp_path / "cache" / "artifacts" / models.digest(TABLE)).write_bytes(b"altered")
    storage.down = True
    async with start() as running:
        await eventually(lambda: "churn" in running.server.servings)
        assert "trying again" in running.server.servings["churn"].failed[2]
        assert (await running.predict([[1]])).status_code == 503
        storage.down = False
        await eventually(lambda: 2 in running.server.servings["churn"].lanes)
        assert (await running.predict([[1]])).json()["predictions"] == [[6.0]]


async def test_a_file_altered_on_disk_and_in_storage_is_refused(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    storage.put(*FILES.values())
    altered = HARMS["a flipped bit"](MODEL)
    cached = tmp_path / "cache" / "artifacts" / models.digest(MODEL)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(altered)
    storage.artifacts[models.digest(MODEL)] = altered
    storage.publish(models.plan(1, ROUTE))
    async with start() as running:
        failed = (await running.reload())["endpoints"]["churn"]["failed"]
        assert failed["2"].startswith("altered: ")
        assert not cached.exists()


@pytest.mark.parametrize("what", FILES)
async def test_a_file_that_is_not_in_storage_is_missing(start: Start, storage: MemoryStorage, what: str) -> None:
    storage.put(*(data for name, data in FILES.items() if name != what))
    storage.publish(models.plan(1, ROUTE))
    async with start() as running:
        failed = (await running.reload())["endpoints"]["churn"]["failed"]
        assert failed["2"].startswith(f"missing: the {what} cannot be had: ")


def test_a_cached_file_that_grew_is_neither_read_nor_copied_as_a_whole(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    path = tmp_path / "artifacts" / models.digest(OLD)
    cache.keep_artifact(models.digest(OLD), [OLD])
    for way in ("read", "copied"):
        with path.open("r+b") as file:
            file.truncate(1 << 42)
        if way == "read":
            assert cache.artifact(models.digest(OLD), max_bytes=len(OLD)) is None
        else:
            assert not cache.copy_artifact(models.digest(OLD), tmp_path / "copy", max_bytes=len(OLD))
        # What is fetched then takes its place.
        cache.keep_artifact(models.digest(OLD), [OLD])
        assert cache.artifact(models.digest(OLD), max_bytes=len(OLD)) == OLD
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("cached", ["as it should be", "not at all", "altered", "longer", "on no disk"])
def test_a_models_file_is_a_copy_of_its_own_of_the_right_bytes(
    storage: MemoryStorage, tmp_path: Path, cached: str
) -> None:
    storage.put(OLD)
    folder = tmp_path / "cache"
    if cached == "on no disk":
        folder.write_bytes(b"a file where a folder should be")
    elif cached != "not at all":
        (folder / "artifacts").mkdir(parents=True)
        harmed = {"as it should be": OLD, "altered": b"\0" + OLD[1:], "longer": OLD * 3}[cached]
        (folder / "artifacts" / models.digest(OLD)).write_bytes(harmed)
    artifacts = Artifacts(storage, DiskCache(folder))
    with artifacts.model(models.digest(OLD), max_bytes=4 * len(OLD)) as copy:
        if folder.is_dir():
            (folder / "artifacts" / models.digest(OLD)).write_bytes(b"altered after it was hashed")
        assert (copy.read_bytes() if isinstance(copy, Path) else copy) == OLD
    if isinstance(copy, Path):
        assert not copy.exists()


class _Unwritable(DiskCache):
    """On a disk that cannot be written to any more: what lies there stays, and nothing is kept."""

    def keep_artifact(self, digest: str, chunks: Iterable[bytes]) -> tuple[str, int]:  # noqa: ARG002 - as it is there
        data = b"".join(chunks)
        return hashlib.sha256(data).hexdigest(), len(data)

    def _drop(self, digest: str) -> None:
        """It stays."""


@pytest.mark.parametrize(
    "lying", [b"\x00" * len(OLD), b"\x00" * (len(OLD) + 100), OLD + b"\x00"], ids=["as long", "longer", "with more"]
)
def test_what_the_disk_altered_is_no_part_of_what_is_loaded_where_it_cannot_be_removed(
    lying: bytes, storage: MemoryStorage, tmp_path: Path
) -> None:
    digest = models.digest(OLD)
    storage.put(OLD)
    DiskCache(tmp_path).keep_artifact(digest, [OLD])
    (kept,) = (path for path in tmp_path.rglob(digest) if path.is_file())
    kept.write_bytes(lying)
    with Artifacts(storage, _Unwritable(tmp_path)).model(digest, max_bytes=len(OLD)) as file:
        assert (file if isinstance(file, bytes) else file.read_bytes()) == OLD
    assert kept.read_bytes() == lying
