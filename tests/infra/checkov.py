"""checkov, which asks nothing of the network, in an environment of its own (tests.infra.environments).

A check of its that dies counts for it as no failure: here it is an error.
"""

import json
import os
import re
import subprocess
import tempfile
from typing import Any

from tests.infra.environments import environment_of

_TIMEOUT_S = 1_200.0
_DIED = re.compile(r"Failed to run check (\S+) on (\S+)")
_OFFLINE = ("--skip-download", "--compact")


def checkov(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run it. Raises EnvironmentMissingError where it cannot be had."""
    program = environment_of("checkov") / "bin" / "checkov"
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("BC_", "CKV_", "PYTHON"))}
    # It writes into its home.
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(
            [str(program), *arguments, *_OFFLINE],
            env=variables | {"HOME": home},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )


def report_of(*arguments: str) -> dict[str, Any]:
    """What it finds, as its JSON tells. Raises RuntimeError where it tells nothing, or one of its checks died."""
    ended = checkov(*arguments, "--output", "json")
    if died := sorted({f"{check} on {where}" for check, where in _DIED.findall(ended.stderr)}):
        raise RuntimeError(f"checks of checkov's died, and say nothing of what they are for: {', '.join(died)}")
    try:
        found = json.loads(ended.stdout)
    except ValueError:
        raise RuntimeError(f"checkov ended with {ended.returncode} and no JSON: {ended.stderr[-400:]}") from None
    return dict(found[0] if isinstance(found, list) else found)
