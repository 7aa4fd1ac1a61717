"""Where `SLIPWAY_SKIPS` is set, only tests may be skipped whose reason it names, as a regular expression; others fail.

For machines that have what tests need, so that nothing goes unseen for want of it. Elsewhere it does nothing: whoever
lacks a program, as nginx, has the tests skipped that need it. `none` names no reason.
"""

import os
import re
from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the report of such a skip into one of a failure; an expected failure is none."""
    report = yield
    allowed = os.environ.get("SLIPWAY_SKIPS")
    if allowed and report.skipped and not hasattr(report, "wasxfail"):
        told: Any = report.longrepr
        why = str(told[2] if isinstance(told, tuple) else told)
        if not re.search(allowed, why):
            report.outcome = "failed"
            report.longrepr = f"{why}: and SLIPWAY_SKIPS lets only {allowed!r} be skipped here"
    return report
