"""`slipway test` leaves no folder of tests out, and lets no process compile what another has compiled."""

import os
import tomllib
from pathlib import Path

import pytest

from cli.checks import FLOOR, REPOSITORY, check_environment, checks, compiling
from tests.support.order import FOLDERS, longest_first


def test_every_folder_of_tests_is_run_once() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]
    run = [word for check in checks([], long=False) for word in check.argv if word.startswith("tests/")]
    assert sorted(run) == sorted(settings["testpaths"])


def test_every_folder_of_tests_has_its_place_in_the_order() -> None:
    run = [word for check in checks([], long=False) for word in check.argv if word.startswith("tests/")]
    assert sorted(run) == sorted(f"tests/{folder}" for folder in FOLDERS)


def test_what_takes_long_is_begun_first_and_of_two_files_in_a_row_one_starts_the_whole_system() -> None:
    found = ["unit/a", "world/b", "e2e/c", "serving/d", "e2e/e", "other/f", "world/g"]
    given = [(f"tests/{file}.py", number) for number in (1, 2) for file in found]
    ordered = longest_first(given, lambda test: test[0])
    files = ["e2e/c", "world/b", "e2e/e", "world/g", "serving/d", "unit/a", "other/f"]
    assert ordered == [(f"tests/{file}.py", number) for file in files for number in (1, 2)]


def test_where_there_is_little_else_each_test_is_run_all_the_same() -> None:
    given = ["tests/e2e/a.py", "tests/e2e/b.py", "tests/e2e/c.py", "tests/unit/d.py"]
    assert longest_first(given, str) == [given[0], given[3], *given[1:3]]


def test_arguments_of_the_caller_s_run_pytest_once_by_those() -> None:
    runs = [check.argv for check in checks(["tests/unit", "-x"], long=False) if check.name.startswith("pytest")]
    assert [run[-2:] for run in runs] == [("tests/unit", "-x")]


@pytest.mark.parametrize(
    ("arguments", "is_shared"),
    [
        ([], True),
        (["tests/unit"], True),
        (["tests/unit/cli", "tests/world/"], True),
        (["tests/unit/cli/test_checks.py"], False),
        (["tests/unit/cli/test_checks.py::test_each"], False),
        (["tests/unit", "-k", "policy"], False),
        (["tests/unit", "--pdb"], False),
        (["tests/unit", "-n", "8"], False),
        (["-p", "no:xdist", "tests/unit"], False),
    ],
)
def test_processes_share_what_is_run_of_whole_folders(arguments: list[str], *, is_shared: bool) -> None:
    pytest_alone = checks(arguments, long=False)[-1].argv
    assert ("loadfile" in pytest_alone) == is_shared
    assert list(pytest_alone[len(pytest_alone) - len(arguments) :]) == arguments


def test_coverage_is_of_every_package_for_who_asks_for_it_and_a_part_of_the_tests_is_held_to_no_floor() -> None:
    def options(arguments: list[str], *, coverage: bool) -> list[str]:
        last = checks(arguments, long=False, coverage=coverage)[-1]
        return [word for word in last.argv if word.startswith("--cov")]

    assert options([], coverage=False) == []
    whole, part = options([], coverage=True), options(["tests/unit"], coverage=True)
    assert set(whole) - set(part) == {f"--cov-fail-under={FLOOR}"}
    assert set(part) - set(whole) == {"--cov-fail-under=0"}
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]
    measured = {word.removeprefix("--cov=") for word in whole if word.startswith("--cov=")}
    assert measured == {*settings["importlinter"]["root_packages"]} == {*settings["coverage"]["run"]["source_pkgs"]}


def test_what_is_imported_is_compiled_beforehand_whatever_the_environment_says(tmp_path: Path) -> None:
    (tmp_path / "fine.py").write_text("there = True\n")
    (tmp_path / "template.py").write_text("{{ no Python }}\n")
    (tmp_path / "within").mkdir()
    (tmp_path / "within" / "also.py").write_text("there = True\n")
    with compiling([str(tmp_path)], check_environment(os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})):
        pass
    compiled = {path.name.partition(".")[0] for path in tmp_path.rglob("__pycache__/*.pyc")}
    assert compiled == {"fine", "also"}


def test_the_checks_write_bytecode_and_import_no_packages_but_those_that_are_installed() -> None:
    names = ["PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PATH", "SLIPWAY_NODE"]
    assert check_environment(dict.fromkeys(names, "x")) == {"PATH": "x", "SLIPWAY_NODE": "x"}
