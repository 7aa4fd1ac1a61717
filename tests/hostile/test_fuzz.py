"""Mutants of real models and bundles: an answer about each, and never an error that a file could force.

Most go through the sandbox's own functions in a few confined processes, some through the whole sandbox. What ends the
process is a finding as well: by memory, CPU time or a crash, which the asking side takes for a refusal or a failure.
"""

import json
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from shared.validation.process import GIB, SandboxLimits, run_child
from tests.hostile.looked_at import PASSED, looked_at
from tests.hostile.mutants import mutant, seeds

_LIMITS = SandboxLimits(memory_bytes=2 * GIB, cpu_s=10, wall_s=60, file_bytes=64 * 1024 * 1024)
_FINDINGS = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGBUS, -signal.SIGXCPU, -signal.SIGILL}
_ANSWERS = ("refused: ", "fail", "pass", "inconclusive")


def _answers(folder: Path, numbers: Sequence[int], *, cpu_s: int) -> dict[int, str]:
    """What becomes of each mutant. A process that one of them ends is followed by another for the rest."""
    left, answers = list(numbers), dict[int, str]()
    while left:
        request = json.dumps([left, os.getpid(), cpu_s]).encode()
        ended = run_child(
            ["-m", "tests.hostile.batch"],
            request,
            workdir=folder,
            wall_s=600,
            max_output_bytes=10_000_000,
            max_written_bytes=1 << 30,
        )
        lines = [json.loads(line) for line in ended.output.splitlines()]
        assert lines, ended.errors
        answers |= {number: answer for number, answer in lines if answer}
        if (last := lines[-1][0]) not in answers:
            answers[last] = (
                f"fail: ended by {ended.exit_code}" if ended.exit_code in _FINDINGS else ended.errors[-2000:]
            )
        left = [number for number in left if number not in answers]
    return answers


def _check(answers: dict[int, str]) -> None:
    wrong = {number: answer for number, answer in answers.items() if not answer.startswith(_ANSWERS)}
    assert not wrong
    kinds = Counter(answer.split(":")[0] for answer in answers.values())
    assert {"refused", "fail"} <= set(kinds), kinds


def test_mutants_get_an_answer(tmp_path: Path) -> None:
    answers = _answers(tmp_path, range(200), cpu_s=60)
    assert len(answers) == 200
    _check(answers)


@pytest.mark.parametrize("number", [3, 14, 15, 92])
def test_a_mutant_gets_an_answer_from_the_whole_sandbox(tmp_path: Path, number: int) -> None:
    name, content = mutant(number)
    (tmp_path / "drop").write_bytes(content)
    found, sentence = looked_at(tmp_path, name, _LIMITS)
    assert found != "unavailable", sentence
    assert not sentence.startswith("error"), sentence


@pytest.mark.parametrize("name", seeds())
def test_what_the_mutants_are_made_from_is_well_formed(tmp_path: Path, name: str) -> None:
    (tmp_path / "drop").write_bytes(seeds()[name])
    assert looked_at(tmp_path, name, _LIMITS)[0] in {PASSED, "accuracy"}


@pytest.mark.long
def test_thousands_of_mutants_get_an_answer(tmp_path: Path) -> None:
    _check(_answers(tmp_path, range(1_000, 6_000), cpu_s=120))


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_hundreds_of_mutants_get_an_answer_from_the_whole_sandbox(tmp_path: Path) -> None:
    for number in range(10_000, 10_300):
        folder = tmp_path / str(number)
        folder.mkdir()
        name, content = mutant(number)
        (folder / "drop").write_bytes(content)
        found, sentence = looked_at(folder, name, _LIMITS)
        assert found != "unavailable", (number, sentence)
        assert not sentence.startswith("error"), (number, sentence)
