"""What a process that was taken over behind the walls can leave on the disk: files made for it, within a bound."""

import os
import textwrap
from pathlib import Path

import pytest

from shared.core.workdir import work_folder
from shared.registry.manifest import Manifest, Task
from shared.registry.policy import ValidationPolicy
from shared.validation.process import Ended, run_child
from shared.validation.sandbox import SandboxLimits
from shared.validation.wire import IntakeTask, Limits, ManifestTask, ModelFiles, Request, ValidateTask
from tests.unit.validation.drops import bundle, good_bundle, scorer

FILE_BYTES = 1 << 20
OUTPUTS = {"golden.json", "performance.json", "profile.json"}
CHECKED = {"checked.onnx", "checked.values"}

TAKEN_OVER = """
import ctypes, os, pathlib, sys, time
from shared.validation import child

libc = ctypes.CDLL(None, use_errno=True)

def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def fill(name):
    file = os.open(name, os.O_WRONLY)
    os.pwrite(file, bytes(1 << 20), 0)
    os.close(file)

def for_ever(attempt):
    '''How often it went well before the system refused.'''
    for number in range(3_000):
        try:
            attempt(number)
        except OSError as error:
            return number, type(error).__name__, error.strerror
    return 3_000, "", "never refused"

def attack(*_, **__):
    own = sorted(entry.name for entry in os.scandir() if entry.is_file())
    for name, attempt in {attempts}.items():
        print(name, *for_ever(attempt), sep="|", file=sys.stderr)
    sys.stderr.flush()
    os._exit(0)

child._carry_out = attack
child.main()
"""
"""The child as it is, with an attacker's code where it would look at the drop."""

MAKE = {
    "make a file": "lambda n: os.close(os.open(f'made-{n}', os.O_CREAT | os.O_WRONLY))",
    "make a file without a name": "lambda n: kept.append(os.open('.', os.O_TMPFILE | os.O_WRONLY))",
    "make a folder": "lambda n: os.mkdir(f'folder-{n}')",
    "make a link": "lambda n: os.symlink('x', f'link-{n}')",
    "make a hard link": "lambda n: os.link(own[0], f'hard-{n}')",
    "make another name": "lambda n: os.rename(own[0], f'name-{n}')",
    "remove a file": "lambda n: os.unlink(own[n])",
    "keep bytes beyond a file's end": "lambda n: checked(libc.fallocate("
    "os.open(own[0], os.O_WRONLY), 1, ctypes.c_long(0), ctypes.c_long(1 << 24)))",
    "keep attributes": "lambda n: os.setxattr(own[0], f'user.a{n}', bytes(1_000))",
    "write more than a file may have": "lambda n: os.pwrite(os.open(own[0], os.O_WRONLY), b'x', 1 << 20)",
    "write its request": "lambda n: os.write(0, bytes(1 << 20))",
    "write its request anew": "lambda n: os.write(os.open('/proc/self/fd/0', os.O_RDWR), bytes(1 << 20))",
    "let its request grow": "lambda n: os.ftruncate(0, n << 20)",
}
"""Each would leave more and more on the disk, and must be refused the first time."""


def attacked(
    folder: Path, work: IntakeTask | ManifestTask | ValidateTask, attempts: str, bound: int = 1 << 30
) -> Ended:
    limits = Limits(memory_bytes=2 << 30, cpu_s=60, file_bytes=FILE_BYTES, open_files=64)
    request = Request(parent_pid=os.getpid(), wall_s=60, limits=limits, work=work)
    return run_child(
        ["-c", "kept = []\n" + textwrap.dedent(TAKEN_OVER).replace("{attempts}", attempts)],
        request.model_dump_json().encode(),
        workdir=folder,
        wall_s=60,
        max_output_bytes=100_000,
        max_written_bytes=bound,
    )


def validation_of(model: Path) -> ValidateTask:
    return ValidateTask(
        model=ModelFiles(path=model),
        validation=None,
        reference=None,
        manifest=Manifest(task=Task.CLASSIFICATION),
        policy=ValidationPolicy(),
    )


def taken_bytes(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def test_a_process_that_was_taken_over_makes_no_files_and_keeps_no_bytes_that_nobody_counts(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(scorer().SerializeToString())
    (tmp_path / "work").mkdir()
    named = "{" + ", ".join(f"{name!r}: {code}" for name, code in MAKE.items()) + "}"
    ended = attacked(tmp_path / "work", validation_of(tmp_path / "model"), named)
    said = {line.split("|")[0]: line.split("|")[1:] for line in ended.errors.splitlines()}
    assert said.keys() == MAKE.keys(), ended
    assert {name: tries for name, (tries, *_) in said.items() if tries != "0"} == {}
    assert {path.name for path in (tmp_path / "work").iterdir()} == CHECKED | OUTPUTS
    assert taken_bytes(tmp_path / "work") == 0


def test_files_with_tensors_that_are_linked_into_reach_cannot_be_written(tmp_path: Path) -> None:
    """The link is the file itself: of a folder, what its owner dropped."""
    (tmp_path / "model").write_bytes(scorer().SerializeToString())
    (tmp_path / "values").write_bytes(b"values")
    (tmp_path / "work").mkdir()
    work = validation_of(tmp_path / "model")
    linked = work.model.model_copy(update={"external": {"w.bin": tmp_path / "values"}})
    write = "{'write': lambda n: os.open(next(pathlib.Path.cwd().glob('linked-*/w.bin')), os.O_WRONLY)}"
    ended = attacked(tmp_path / "work", work.model_copy(update={"model": linked}), write)
    assert ended.errors == "write|0|PermissionError|Permission denied\n"


@pytest.mark.parametrize(
    ("dropped", "names"),
    [
        ("m.onnx", CHECKED),
        ("b.zip", CHECKED | {f"part-{number}" for number in range(1, len(good_bundle()) // 47 + 1)}),
        ("", set[str]()),
    ],
    ids=["model", "bundle", "manifest"],
)
def test_a_task_has_the_files_that_it_writes_and_no_more(tmp_path: Path, dropped: str, names: set[str]) -> None:
    (tmp_path / "drop").write_bytes(good_bundle())
    (tmp_path / "work").mkdir()
    path = tmp_path / "drop"
    work = IntakeTask(path=path, filename=dropped) if dropped else ManifestTask(path=path)
    ended = attacked(tmp_path / "work", work, "{'make': lambda n: open(f'made-{n}', 'x')}")
    assert ended.errors == "make|0|PermissionError|Permission denied\n"
    assert {path.name for path in (tmp_path / "work").iterdir()} == names


def test_no_zip_holds_more_files_than_are_made_for_it(tmp_path: Path) -> None:
    """The smallest that there can be: files of nothing, with a name of a letter."""
    names = "abcdefghijklmnopqrstuvwxyz"
    (tmp_path / "drop").write_bytes(bundle(dict.fromkeys(names, b"")))
    (tmp_path / "work").mkdir()
    attacked(tmp_path / "work", IntakeTask(path=tmp_path / "drop", filename="b.zip"), "{}")
    assert len(names) <= len(list((tmp_path / "work").glob("part-*"))) < 2 * len(names)


def test_a_process_that_fills_its_files_is_killed_at_the_bound_and_the_disk_is_as_before() -> None:
    """Each file within its own limit, all of them far beyond what may be written."""
    bound = 40 * FILE_BYTES
    with work_folder("attack") as folder:
        (folder / "drop").write_bytes(bytes(100_000))
        (folder / "work").mkdir()
        fill = "{'fill': lambda n: fill(own[n]) if n < 200 else time.sleep(60)}"
        ended = attacked(folder / "work", IntakeTask(path=folder / "drop", filename="b.zip"), fill, bound)
        assert (ended.overfull, ended.exit_code) == (True, -9), ended
        assert bound < taken_bytes(folder / "work") <= 200 * FILE_BYTES
    assert not folder.exists()


def test_what_may_be_written_leaves_room_for_the_largest_bundle() -> None:
    assert SandboxLimits(file_bytes=FILE_BYTES).written_bytes == 3 * FILE_BYTES
