"""`slipway test` leaves no folder of tests out."""

import tomllib

from cli.checks import REPOSITORY, checks
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
