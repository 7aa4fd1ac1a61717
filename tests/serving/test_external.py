"""Tensors in files beside the model: fetched, checked, loaded from copies that nobody else has."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aks_serving.cache import DiskCache, digests

from tests.serving import models
from tests.serving.conftest import Running, Start, eventually
from tests.serving.fakes import MemoryStorage

pytestmark = pytest.mark.anyio

TENS, ONES = models.numbers(*(10.0 * n for n in range(64))), models.numbers(*(float(n) for n in range(64)))
LOOKUP = models.lookup(("tens.bin", 0, len(TENS)), ("parts/ones.bin", 0, len(ONES)))
EXTERNAL = {"tens.bin": TENS, "parts/ones.bin": ONES}
_ROOT = Path(__file__).parents[2]


def _publish(storage: MemoryStorage, generation: int = 1, version: int = 1) -> None:
    storage.put(LOOKUP, TENS, ONES)
    storage.publish(models.plan(generation, models.route(version, LOOKUP, external=EXTERNAL)))


async def _answer(running: Running, index: int = 7) -> float:
    answer = await running.predict([[index]])
    assert answer.status_code == 200, answer.text
    value: float = answer.json()["predictions"][0][0]
    return value


async def test_a_model_in_several_files_answers_and_leaves_no_copies_behind(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    _publish(storage)
    async with start() as running:
        assert (await running.reload())["endpoints"]["churn"]["loaded"] == [1]
        assert await _answer(running) == 77.0
    # Only now: keeping the plan for the next start takes a folder of its own for a moment.
    assert next(os.walk(tmp_path / "cache" / "private"))[1:] == ([], [])


async def test_part_of_a_file_is_read_where_the_model_says(start: Start, storage: MemoryStorage) -> None:
    storage.put(data := models.lookup(("tens.bin", 32, 64)), TENS)
    storage.publish(models.plan(1, models.route(1, data, external={"tens.bin": TENS})))
    async with start() as running:
        await running.reload()
        assert await _answer(running, 3) == 110.0


@pytest.mark.parametrize("size", [0, 5])
async def test_what_happens_to_the_cache_afterwards_does_not_reach_a_loaded_model(
    start: Start, storage: MemoryStorage, tmp_path: Path, size: int
) -> None:
    _publish(storage)
    async with start() as running:
        await running.reload()
        for data in (TENS, ONES):
            cached = tmp_path / "cache" / "artifacts" / models.digest(data)
            with cached.open("r+b") as file:
                file.write(bytes(len(data)))
                file.truncate(size)
        assert [await _answer(running, index) for index in (0, 7, 63)] == [0.0, 77.0, 693.0]


async def test_a_restart_with_storage_down_loads_external_data_from_the_cache(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    _publish(storage)
    async with start() as running:
        await running.reload()
        await eventually((tmp_path / "cache" / "plans" / "churn.json").exists)
    storage.down = True
    async with start() as running:
        await eventually(lambda: running.server.not_ready() == "")
        assert await _answer(running) == 77.0
        storage.down = False


async def test_external_data_altered_on_disk_is_fetched_again(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    _publish(storage)
    cached = tmp_path / "cache" / "artifacts" / models.digest(TENS)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(ONES)
    async with start() as running:
        await running.reload()
        assert await _answer(running) == 77.0
        assert cached.read_bytes() == TENS


async def test_a_disk_that_takes_no_copies_loads_from_memory(
    start: Start, storage: MemoryStorage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file stands where the directory should be")
    _publish(storage)
    async with start() as running:
        await running.reload()
        assert [await _answer(running, index) for index in (0, 7, 63)] == [0.0, 77.0, 693.0]
    assert "loaded from memory" in caplog.text


@pytest.mark.parametrize(
    "location", ["other.bin", "parts/other.bin", "../tens.bin", "parts/../../tens.bin", "/etc/hostname", "parts"]
)
async def test_external_data_that_the_plan_does_not_name_is_not_read(
    start: Start, storage: MemoryStorage, tmp_path: Path, location: str
) -> None:
    (tmp_path / "cache").mkdir()
    for place in (tmp_path, tmp_path / "cache", tmp_path / "cache" / "private"):
        place.mkdir(exist_ok=True)
        (place / "tens.bin").write_bytes(TENS)
        (place / "other.bin").write_bytes(TENS)
    storage.put(data := models.lookup((location, 0, 4), ("parts/ones.bin", 0, len(ONES))), ONES)
    storage.publish(models.plan(1, models.route(1, data, external={"parts/ones.bin": ONES})))
    async with start() as running:
        failed = (await running.reload())["endpoints"]["churn"]["failed"]
        assert failed["1"].startswith("model: ONNX Runtime cannot load the model: ")


@pytest.mark.parametrize(
    "name", ["../tens.bin", "/tens.bin", "a/../../tens.bin", "", ".", "a//b", "a\0b", "./tens.bin"]
)
async def test_a_plan_whose_names_lead_elsewhere_writes_nothing_there(
    start: Start, storage: MemoryStorage, tmp_path: Path, name: str
) -> None:
    storage.put(LOOKUP, TENS)
    storage.publish(models.plan(1, models.route(1, LOOKUP, external={name: TENS})))
    async with start() as running:
        failed = (await running.reload())["endpoints"]["churn"]["failed"]
        assert "which is no plain relative path" in failed["1"]
    assert [where for where, _, files in os.walk(tmp_path) if "tens.bin" in files] == []


async def test_a_tensor_beyond_the_end_of_its_file_is_refused(start: Start, storage: MemoryStorage) -> None:
    storage.put(data := models.lookup(("tens.bin", len(TENS) - 4, 8)), TENS)
    storage.publish(models.plan(1, models.route(1, data, external={"tens.bin": TENS})))
    async with start() as running:
        failed = (await running.reload())["endpoints"]["churn"]["failed"]
        assert failed["1"].startswith("model: ")


async def test_a_version_whose_external_data_alone_differs_is_loaded_anew(start: Start, storage: MemoryStorage) -> None:
    _publish(storage)
    other = models.numbers(*(1000.0 * n for n in range(64)))
    storage.put(other)
    async with start() as running:
        await running.reload()
        storage.publish(models.plan(2, models.route(1, LOOKUP, external=EXTERNAL | {"tens.bin": other})))
        await running.reload()
        assert await _answer(running) == 7007.0


async def test_a_broken_download_is_tried_again_and_leaves_nothing_half_written(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    _publish(storage)
    storage.breaking = {models.digest(TENS)}
    async with start(poll_s=0.02) as running:
        await eventually(lambda: "churn" in running.server.servings)
        assert not (tmp_path / "cache" / "artifacts" / models.digest(TENS)).exists()
        storage.breaking.clear()
        await eventually(lambda: 1 in running.server.servings["churn"].lanes)
        assert await _answer(running) == 77.0
    assert not [path for path in (tmp_path / "cache" / "artifacts").iterdir() if path.name.startswith(".")]


def test_a_plan_needs_its_external_data_and_its_signature() -> None:
    from shared.routing.plan import Signing

    signing = Signing(digest="5" * 64, trusted_keys=("key",))
    plan = models.plan(1, models.route(1, LOOKUP, external=EXTERNAL, signing=signing))
    assert digests(plan) == {models.digest(LOOKUP), models.digest(TENS), models.digest(ONES), "5" * 64}


def test_the_private_folder_of_a_process_that_died_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from aks_serving.cache import DiskCache\n"
        "with DiskCache(Path(sys.argv[1])).private_folder() as folder:\n"
        "    (folder / 'weights.bin').write_bytes(b'w'); print(folder, flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().decode().strip())
        DiskCache(tmp_path).prune_artifacts(frozenset)
        assert (folder / "weights.bin").exists()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert (folder / "weights.bin").exists()
        DiskCache(tmp_path).prune_artifacts(frozenset)
        assert not folder.exists()


_MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from aks_serving.cache import DiskCache
from aks_serving.loader import Loader
from shared.routing.plan import Route

class Folder:
    def artifact(self, digest, *, max_bytes):
        with (Path(sys.argv[1]) / digest).open("rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk

def memory(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024

if int(sys.argv[5]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[5]), int(sys.argv[5])))
warm, route = (Route.model_validate_json(text) for text in sys.argv[3:5])
loader = Loader(Folder(), DiskCache(Path(sys.argv[2])))
loader.load("churn", warm)
anonymous, peak = memory("RssAnon"), memory("VmHWM")
loaded = loader.load("churn", route)
print(memory("RssAnon") - anonymous, memory("VmHWM") - peak)
print(float(loaded.model.run({"x": np.array([[1]])})[0][0, 0]))
"""


def _loaded_elsewhere(folder: Path, size_bytes: int, *, largest_file_bytes: int = 0) -> tuple[int, int]:
    """How much a process grew by external data of a size: anonymous memory, and all at its peak."""
    table = models.numbers(0.0, 42.0) * (size_bytes // 8)
    data = models.lookup(("table.bin", 0, size_bytes))
    (folder / "stored").mkdir()
    for file in (table, data, TENS, small := models.lookup(("table.bin", 0, len(TENS)))):
        (folder / "stored" / models.digest(file)).write_bytes(file)
    routes = [
        models.route(1, small, external={"table.bin": TENS}),
        models.route(2, data, external={"table.bin": table}),
    ]
    plans = [route.model_dump_json() for route in routes]
    del table
    arguments = [str(folder / "stored"), str(folder / "cache"), *plans, str(largest_file_bytes)]
    ended = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments], cwd=_ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    anonymous, peak, answer = ended.stdout.split()
    assert float(answer) == 42.0
    return int(anonymous), int(peak)


def test_large_external_data_is_never_held_in_memory_as_a_whole(tmp_path: Path) -> None:
    size_bytes = 96 * 1024 * 1024
    anonymous, peak = _loaded_elsewhere(tmp_path, size_bytes)
    assert anonymous < size_bytes // 8
    assert peak < size_bytes // 4


def test_external_data_that_the_disk_has_no_room_for_is_loaded_from_memory(tmp_path: Path) -> None:
    _loaded_elsewhere(tmp_path, 1024 * 1024, largest_file_bytes=100_000)
    assert [path for path in (tmp_path / "cache" / "artifacts").iterdir() if path.stat().st_size > 100_000] == []
    assert list((tmp_path / "cache" / "private").iterdir()) == []
