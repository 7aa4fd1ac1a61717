"""Processes that share a cache, and want the same file at once: one downloads it, and no other hangs on that one."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aks_serving.artifacts import Artifacts
from aks_serving.cache import DiskCache

from tests.serving import models
from tests.serving.downloads import counted
from tests.serving.fakes import MemoryStorage
from tests.serving.processes import ROOT, Account, Launch
from tests.support.waiting import eventually

DATA = models.totals() + os.urandom(12 * 1024 * 1024)
DIGEST = models.digest(DATA)
ROWS = {"datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}
_WAIT_S = 0.5
"""So long processes have to begin downloads of their own, which they are not to do."""
_LONG_S = 600.0
"""After so long a download stands, where none is to: the test, which holds it up, may stand still for seconds."""
_READS = """
import hashlib, json, resource, sys
from pathlib import Path
from aks_serving.artifacts import Artifacts
from aks_serving.cache import DiskCache
from aks_serving.settings import Settings
from aks_serving.storage import open_storage

connection, folder, digest, size_bytes, file_bytes, options = json.loads(sys.argv[1])
if file_bytes is not None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
settings = Settings(storage_connection=connection, blob_url=None, cache_dir=Path(folder), pod="pod")
artifacts = Artifacts(open_storage(settings), DiskCache(settings.cache_dir, **options))
print("is ready", flush=True)
sys.stdin.readline()
print(hashlib.sha256(artifacts.read(digest, max_bytes=size_bytes, what="model")).hexdigest(), flush=True)
"""


class _Reader:
    """A process that reads the file."""

    def __init__(self, connection: str, folder: Path, *, file_bytes: int | None, options: dict[str, float]) -> None:
        """`options` are those of its cache."""
        asked = json.dumps([connection, str(folder), DIGEST, len(DATA), file_bytes, options])
        self.process = subprocess.Popen(
            [sys.executable, "-c", _READS, asked],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def is_ready(self) -> bool:
        assert self.process.stdout is not None
        return self.process.stdout.readline() == "is ready\n"

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def read(self) -> str:
        """The digest of what it read."""
        said, _ = self.process.communicate(timeout=100)
        return said.strip()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


type Readers = Callable[..., list[_Reader]]


@pytest.fixture
def readers(tmp_path: Path) -> Iterator[Readers]:
    """Starts so many readers, which are ready then: from there on nothing of what they do takes long."""
    made: list[_Reader] = []

    def started(connection: str, count: int, *, file_bytes: int | None = None, **options: float) -> list[_Reader]:
        these = [_Reader(connection, tmp_path / "cache", file_bytes=file_bytes, options=options) for _ in range(count)]
        made.extend(these)
        assert all(reader.is_ready() for reader in these)
        return these

    yield started
    for reader in made:
        reader.close()


def test_processes_that_want_a_file_at_once_download_it_once(
    account: Account, readers: Readers, tmp_path: Path
) -> None:
    account.put(DATA)
    with counted(account.connection, held=1) as storage:
        three = readers(storage.connection, 3, stands_s=_LONG_S)
        for reader in three:
            reader.begin()
        eventually(storage.counts.total, what="a download has begun")
        time.sleep(_WAIT_S)
        storage.let_go.set()
        assert [reader.read() for reader in three] == [DIGEST] * 3
        assert storage.counts == {DIGEST: 1}
    left = {path.relative_to(tmp_path / "cache"): path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {Path("turns"): 0, Path("artifacts", DIGEST): len(DATA)}


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_when_who_downloads_is_killed_another_takes_its_turn(account: Account, readers: Readers, part: float) -> None:
    account.put(DATA)
    with counted(account.connection, held=1, part=part) as storage:
        first, *others = readers(storage.connection, 3, stands_s=_LONG_S)
        first.begin()
        eventually(storage.counts.total, what="a download has begun")
        for other in others:
            other.begin()
        time.sleep(_WAIT_S)
        assert storage.counts == {DIGEST: 1}
        first.process.kill()
        assert [reader.read() for reader in others] == [DIGEST] * 2
        assert storage.counts == {DIGEST: 2}


def test_a_download_that_stands_is_not_waited_for(account: Account, readers: Readers) -> None:
    account.put(DATA)
    with counted(account.connection, held=1) as storage:
        first, second = readers(storage.connection, 2)
        first.begin()
        eventually(storage.counts.total, what="a download has begun")
        second.begin()
        assert second.read() == DIGEST
        assert not storage.let_go.is_set()
        storage.let_go.set()
        assert first.read() == DIGEST


def test_processes_on_a_full_disk_download_each_for_itself(account: Account, readers: Readers) -> None:
    account.put(DATA)
    with counted(account.connection) as storage:
        both = readers(storage.connection, 2, file_bytes=len(DATA) // 2)
        for reader in both:
            reader.begin()
        assert [reader.read() for reader in both] == [DIGEST] * 2


def test_where_there_can_be_no_turns_each_downloads_for_itself(storage: MemoryStorage, tmp_path: Path) -> None:
    storage.put(DATA)
    (tmp_path / "turns").mkdir()
    assert Artifacts(storage, DiskCache(tmp_path)).read(DIGEST, max_bytes=len(DATA), what="model") == DATA


def test_the_workers_of_a_server_download_each_file_once(account: Account, launch: Launch) -> None:
    files = [models.scaler(float(number)) for number in range(1, 4)]
    golden = models.golden([({"x": ROWS}, {"y": ROWS})])
    account.put(*files, golden)
    account.publish(models.plan(1, models.route(1, files[0], golden=golden)))
    with counted(account.connection) as storage:
        server = launch(storage.connection, SLIPWAY_WORKERS="4")
        eventually(server.ready, what="every worker has version 1")
        account.publish(models.plan(2, *models.canary((2, files[1]), (3, files[2]), 5_000)))
        server.http.post("/models/reload")
        eventually(lambda: server.generation() == 2 and server.ready(), what="the new versions are served")
        assert server.stop() == 0
        assert storage.counts == {models.digest(data): 1 for data in (*files, golden)}
