"""`slipway test` leaves no folder of tests out."""

import tomllib

from cli.checks import REPOSITORY, checks


def test_every_folder_of_tests_is_run_once() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]
    run = [word for check in checks([], long=False) for word in check.argv if word.startswith("tests/")]
    assert sorted(run) == sorted(settings["testpaths"])


def test_arguments_of_the_caller_s_run_pytest_once_by_those() -> None:
    runs = [check.argv for check in checks(["tests/unit", "-x"], long=False) if check.name.startswith("pytest")]
    assert [run[-2:] for run in runs] == [("tests/unit", "-x")]
