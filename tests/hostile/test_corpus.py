"""Every artifact of the corpus, through the real sandbox: refused for its own reason, and nothing else happens."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.validation.process import GIB, MAX_AT_ONCE, SandboxLimits
from tests.hostile.corpus import CORPUS, Artifact
from tests.hostile.looked_at import looked_at

pytestmark = pytest.mark.timeout(1_800)  # of the whole corpus, which is looked at for the first test
LIMITS = SandboxLimits(memory_bytes=2 * GIB, cpu_s=4, wall_s=60, file_bytes=64 * 1024 * 1024)
_MOST_GROWN_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What became of the whole corpus, and of the process that had it looked at."""

    root: Path
    answers: dict[str, tuple[str, str]]
    grown_bytes: int


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """The artifacts are built by another process, so that this one's memory shows what looking at them costs."""
    root = tmp_path_factory.mktemp("corpus")
    build = "import sys, pathlib; from tests.hostile.corpus import build_all; build_all(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", build, root], check=True)

    def look(number: int, artifact: Artifact) -> tuple[str, str]:
        return looked_at(root / str(number), artifact.filename, LIMITS)

    before = _resident_bytes()
    with ThreadPoolExecutor(MAX_AT_ONCE) as threads:
        answers = list(threads.map(look, range(len(CORPUS)), CORPUS))
    grown_bytes = _resident_bytes() - before
    names = [artifact.name for artifact in CORPUS]
    return Seen(root=root, answers=dict(zip(names, answers, strict=True)), grown_bytes=grown_bytes)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("artifact", CORPUS, ids=lambda artifact: artifact.name)
def test_a_hostile_drop_is_refused_for_its_own_reason(seen: Seen, artifact: Artifact) -> None:
    found, sentence = seen.answers[artifact.name]
    assert found == (artifact.code or artifact.check), sentence
    assert artifact.said in sentence


def test_the_corpus_is_as_large_as_it_should_be_and_no_reason_is_empty() -> None:
    assert len({artifact.name for artifact in CORPUS}) == len(CORPUS) >= 30
    assert all(artifact.said and bool(artifact.code) != bool(artifact.check) for artifact in CORPUS)


def test_the_memory_of_the_process_that_asks_does_not_grow(seen: Seen) -> None:
    assert seen.grown_bytes < _MOST_GROWN_BYTES


def test_nothing_is_written_outside_of_the_working_directories(seen: Seen) -> None:
    assert {path.name for path in seen.root.iterdir()} == {str(number) for number in range(len(CORPUS))}
    for folder in seen.root.iterdir():
        assert {path.name for path in folder.iterdir()} <= {"drop", "taken", "validated"}
    assert not [path for path in seen.root.rglob("*") if path.name in {"owned", "escape"}]


def test_no_process_is_left(seen: Seen) -> None:
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            place = (process / "cwd").readlink()
        except OSError:
            continue
        if place.is_relative_to(seen.root):
            left.append(process.name)
    assert not left
