"""The cache on disk."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aks_serving.cache import DiskCache, digests

from shared.core.errors import InvalidInputError, UnavailableError
from shared.core.ids import EndpointName
from tests.serving import models

_ROOT = Path(__file__).parents[2]


def _read(cache: DiskCache, data: bytes) -> bytes | None:
    return cache.artifact(models.digest(data), max_bytes=len(data))


def test_a_reader_never_sees_half_a_plan(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    whole = {letter * 2_000_000 for letter in (b"a", b"b")}
    seen: set[bytes] = set()
    done = threading.Event()

    def write() -> None:
        for _ in range(15):
            for data in whole:
                cache.keep_plan("churn", data)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        seen |= set(DiskCache(tmp_path).plans().values())
    writer.join()
    assert seen <= whole
    assert [path.name for path in (tmp_path / "plans").iterdir()] == ["churn.json"]


def test_files_that_are_no_plans_are_passed_over(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    cache.keep_plan("churn", b"{}")
    (tmp_path / "plans" / "Not A Name.json").write_bytes(b"")
    (tmp_path / "plans" / "folder.json").mkdir()
    assert cache.plans() == {EndpointName("churn"): b"{}"}


def test_an_altered_artifact_is_not_given_and_does_not_stay(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    data = models.scaler(1.0)
    cache.keep_artifact(models.digest(data), [data])
    assert _read(cache, data) == data
    path = tmp_path / "artifacts" / models.digest(data)
    path.write_bytes(data[:-1])
    assert _read(cache, data) is None
    assert not path.exists()


def test_an_artifact_that_is_larger_than_it_may_be_is_not_given_and_stays(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    data = models.scaler(1.0)
    cache.keep_artifact(models.digest(data), [data])
    for max_bytes in (0, len(data) - 1):
        assert cache.artifact(models.digest(data), max_bytes=max_bytes) is None
        assert not cache.copy_artifact(models.digest(data), tmp_path / "copy", max_bytes=max_bytes)
    assert _read(cache, data) == data


def test_pruning_keeps_what_is_wanted_and_what_any_kept_plan_needs(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    files = [models.scaler(float(number)) for number in range(4)]
    for data in files:
        cache.keep_artifact(models.digest(data), [data])
    kept_plan = models.plan(1, models.route(1, files[0], golden=files[1]))
    cache.keep_plan("churn", kept_plan.model_dump_json().encode())
    cache.prune_artifacts(lambda: frozenset({models.digest(files[2])}))
    assert [_read(cache, data) is not None for data in files] == [True, True, True, False]
    assert digests(kept_plan) == {models.digest(files[0]), models.digest(files[1])}


def test_pruning_removes_nothing_where_a_kept_plan_cannot_be_read(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    data = models.scaler(1.0)
    cache.keep_artifact(models.digest(data), [data])
    cache.keep_plan("churn", b"{")
    cache.prune_artifacts(frozenset)
    assert _read(cache, data) == data


def test_a_disk_that_cannot_be_written_is_logged_and_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_bytes(b"")
    cache = DiskCache(tmp_path / "cache")
    cache.keep_plan("churn", b"{}")
    assert "is not kept for the next start" in caplog.text
    assert cache.plans() == {}
    assert cache.artifact("0" * 64, max_bytes=1) is None
    cache.prune_artifacts(frozenset)


def test_a_download_that_a_killed_process_left_is_removed_with_the_next_pruning(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from aks_serving.cache import DiskCache\n"
        "def chunks():\n"
        "    yield b'half'\n"
        "    os.kill(os.getpid(), 9)\n"
        "DiskCache(Path(sys.argv[1])).keep_artifact('0' * 64, chunks())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=_ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert list(tmp_path.rglob("0" * 64)) != []
    DiskCache(tmp_path).prune_artifacts(frozenset)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list((tmp_path / "private").iterdir()) == []


def test_a_stream_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise UnavailableError("blob storage", "it broke off")

    with pytest.raises(UnavailableError):
        DiskCache(tmp_path).keep_artifact("0" * 64, chunks())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_content_of_another_digest_is_told_and_not_kept(tmp_path: Path) -> None:
    cache, data = DiskCache(tmp_path), models.scaler(1.0)
    assert cache.keep_artifact("0" * 64, [data[:5], data[5:]]) == (models.digest(data), len(data))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("form", ["{victim}", "../../victim.txt", "../artifacts/../../victim.txt", "", "."])
def test_what_is_no_digest_leads_to_no_path(tmp_path: Path, form: str) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    cache = DiskCache(tmp_path / "cache")
    cache.keep_artifact("0" * 64, [b"so that the folder exists"])
    digest = form.format(victim=victim)
    asks: list[Callable[[], object]] = [
        lambda: cache.artifact(digest, max_bytes=4),
        lambda: cache.keep_artifact(digest, [b"evil"]),
        lambda: cache.copy_artifact(digest, tmp_path / "copy", max_bytes=100),
    ]
    for ask in asks:
        with pytest.raises(InvalidInputError, match="is not a SHA-256 digest"):
            ask()
    assert victim.read_text() == "precious"
    assert not (tmp_path / "copy").exists()
