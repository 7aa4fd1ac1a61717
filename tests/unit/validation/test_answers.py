"""What the asking side makes of the ways in which a child can end, and of the files that it leaves."""

import json
import os
import signal
from pathlib import Path

import pytest

from shared.core.verdict import Outcome
from shared.registry.manifest import Manifest, Task
from shared.validation.process import Ended, SandboxLimits
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.sandbox import _death, _part, _read
from shared.validation.wire import EXIT_MEMORY, Accepted, Progress, Refused, Stage

LIMITS = SandboxLimits(memory_bytes=2 * 1024**3, cpu_s=30, wall_s=60)
LOADING = Progress(stage=Stage.LOADING).model_dump_json().encode() + b"\n"
ACCEPTED = Accepted(manifest=Manifest(task=Task.REGRESSION))


def ended(
    *,
    exit_code: int = 0,
    timed_out: bool = False,
    overfull: bool = False,
    output: bytes = LOADING,
    overflowed: bool = False,
    errors: str = "",
) -> Ended:
    return Ended(
        exit_code=exit_code,
        timed_out=timed_out,
        overfull=overfull,
        output=output,
        overflowed=overflowed,
        errors=errors,
    )


def validated(*, check: str = "size", sentence: str = "x", metrics: dict[str, float] | None = None) -> bytes:
    verdict = {"check": check, "outcome": "pass", "sentence": sentence}
    report = {"outcome": "pass", "verdicts": [verdict], "metrics": metrics or {}}
    return json.dumps({"kind": "validated", "report": report}).encode() + b"\n"


def test_a_report_reads_whose_texts_and_metrics_are_at_their_limits() -> None:
    metrics = {"m" * 99 + chr(48 + i): 1.0 for i in range(50)}
    assert _read(ended(output=validated(check="x" * 100, sentence="x" * 1_000, metrics=metrics)))[1] is not None


def test_an_answer_reads_after_its_progress() -> None:
    output = LOADING + ACCEPTED.model_dump_json().encode() + b"\n"
    assert _read(ended(output=output)) == (Stage.LOADING, ACCEPTED)


@pytest.mark.parametrize(
    "output",
    [
        b"",
        LOADING,
        LOADING + b"hello\n",
        LOADING + b"\xff\xfe\n",
        LOADING + b'{"kind":"accepted"}\n',
        LOADING + b'{"kind":"accepted","manifest":{"task":"regression","model":"../../x"}}\n',
        LOADING + b'{"kind":"accepted","manifest":{"task":"regression"},"more":1}\n',
        LOADING + b'{"kind":"refused","code":"because","message":"x"}\n',
        LOADING + b'{"kind":"refused","code":"not_onnx","message":"' + b"x" * 501 + b'"}\n',
        LOADING + b'{"kind":"validated","report":{"outcome":"pass","verdicts":[]}}\n',
        LOADING
        + b'{"kind":"validated","report":{"outcome":"pass","verdicts":'
        + b'[{"check":"size","outcome":"fail","sentence":"x"}]}}\n',
        LOADING + validated(sentence="x" * 1_001),
        LOADING + validated(check="x" * 101),
        LOADING + validated(metrics={f"m{i}": 1.0 for i in range(51)}),
        LOADING + validated(metrics={"m" * 101: 1.0}),
        LOADING + b"[" * 100_000 + b"\n",
        LOADING + ACCEPTED.model_dump_json().encode() + b"\n" + LOADING,
        LOADING + ACCEPTED.model_dump_json().encode()[:-1] + b"\n",
    ],
)
def test_anything_else_is_no_answer(output: bytes) -> None:
    assert _read(ended(output=output))[1] is None


def test_an_answer_of_which_a_part_was_dropped_is_none() -> None:
    output = Refused(code=RefusalCode.BAD_DATA, message="x").model_dump_json().encode() + b"\n"
    assert _read(ended(output=output))[1] is not None
    assert _read(ended(output=output, overflowed=True))[1] is None


@pytest.mark.parametrize(
    ("end", "outcome", "sentence"),
    [
        (ended(exit_code=-9, timed_out=True), Outcome.FAIL, "took longer than 60 s while loading the model"),
        (
            ended(exit_code=-9, overfull=True),
            Outcome.FAIL,
            "wrote more than 24000000000 bytes to the disk while loading the model",
        ),
        (
            ended(exit_code=-9, timed_out=True, errors="std::bad_alloc"),
            Outcome.FAIL,
            "took longer than 60 s while loading the model",
        ),
        (
            ended(exit_code=-9, overfull=True, errors="std::bad_alloc"),
            Outcome.FAIL,
            "wrote more than 24000000000 bytes to the disk while loading the model",
        ),
        (
            ended(exit_code=EXIT_MEMORY),
            Outcome.FAIL,
            "used more than 2 GB of memory while loading the model: a smaller model, or fewer rows of data, take less",
        ),
        (
            ended(exit_code=1, errors="OpenBLAS error: Memory allocation still failed after 10 retries, giving up."),
            Outcome.FAIL,
            "used more than 2 GB of memory while loading the model",
        ),
        (
            ended(exit_code=-signal.SIGABRT, errors="what(): std::bad_alloc"),
            Outcome.FAIL,
            "used more than 2 GB of memory while loading the model",
        ),
        (ended(exit_code=-signal.SIGXCPU), Outcome.FAIL, "used more than 30 s of CPU time while loading the model"),
        (ended(exit_code=-signal.SIGSEGV), Outcome.FAIL, "crashed the process (SIGSEGV) while loading the model"),
        (ended(exit_code=-63), Outcome.FAIL, "crashed the process (signal 63) while loading the model"),
        (ended(exit_code=-signal.SIGKILL), Outcome.ERROR, "was killed from outside while loading the model"),
        (ended(exit_code=1, errors="Oops\n\x1b[31m"), Outcome.ERROR, "it printed 'Oops ?[31m'"),
        (ended(), Outcome.ERROR, "ended with code 0 and no answer that reads, while loading the model"),
    ],
)
def test_each_end_without_an_answer_is_told_by_its_own_sentence(end: Ended, outcome: Outcome, sentence: str) -> None:
    death = _death(end, Stage.LOADING, LIMITS)
    assert death.outcome is outcome
    assert sentence in death.sentence


def test_a_file_that_was_left_must_be_a_regular_one_within_its_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    part = _part(tmp_path / "file", 3)
    assert part.size_bytes == 3
    assert part.digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    for name, max_bytes in (("file", 2), ("link", 3), ("folder", 10_000), ("fifo", 3), ("absent", 3)):
        with pytest.raises(DropRefusedError):
            _part(tmp_path / name, max_bytes)
