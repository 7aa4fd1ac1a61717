"""checkov, in an environment of its own: its packages and ours exclude each other.

The environment is made on demand from infra/checks/checkov.lock, which holds a hash of every package, lies in the
user's cache under the digest of the lock, and is kept. `python -m tests.infra.checkov` compiles the lock anew.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.serving.environments import EnvironmentMissingError, cache_folder, find_uv

CHECKS = Path(__file__).parents[2] / "infra" / "checks"
_LOCK = CHECKS / "checkov.lock"
_PYTHON = "3.13"
_STAMP = "slipway-stamp"
_TIMEOUT_S = 1_200.0
_OFFLINE = ("--skip-download", "--compact")


def checkov(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run checkov, which asks nothing of the network. Raises EnvironmentMissingError where it cannot be had."""
    # It writes into its home.
    with tempfile.TemporaryDirectory() as home:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("BC_", "CKV_", "PYTHON"))}
        return subprocess.run(
            [str(_program()), *arguments, *_OFFLINE],
            env=environment | {"HOME": home},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )


def report_of(*arguments: str) -> dict[str, Any]:
    """What it finds, as its JSON tells. Raises RuntimeError where it tells nothing."""
    ended = checkov(*arguments, "--output", "json")
    try:
        found = json.loads(ended.stdout)
    except ValueError:
        raise RuntimeError(f"checkov ended with {ended.returncode} and no JSON: {ended.stderr[-400:]}") from None
    return dict(found[0] if isinstance(found, list) else found)


def _program() -> Path:
    """The program, of an environment that is made where there is none yet; only one process makes it."""
    digest = hashlib.sha256(_PYTHON.encode() + _LOCK.read_bytes()).hexdigest()[:12]
    folder = cache_folder(os.environ)
    environment = folder / f"checkov-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "checkov.making").open("w") as making:
        fcntl.flock(making, fcntl.LOCK_EX)
        if not (environment / _STAMP).exists():
            shutil.rmtree(environment, ignore_errors=True)
            python = environment / "bin" / "python"
            _uv("venv", "--no-project", "--quiet", "--python", _PYTHON, str(environment))
            _uv("pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(_LOCK))
            (environment / _STAMP).touch()
    return environment / "bin" / "checkov"


def _uv(*arguments: str) -> None:
    command = [find_uv(), *arguments]
    environment = {key: value for key, value in os.environ.items() if key not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    try:
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentMissingError(f"uv {arguments[0]}: {error}") from error
    if ended.returncode != 0:
        raise EnvironmentMissingError(f"uv {arguments[0]} failed: {ended.stderr.strip()[-400:]}")


def main() -> None:
    """Compile the lock anew."""
    options = ["--python-version", _PYTHON, "--python-platform", "linux", "--generate-hashes", "--no-header"]
    options += ["--no-annotate", "--no-emit-index-url", "--quiet", "--upgrade"]
    _uv("pip", "compile", str(CHECKS / "checkov.in"), *options, "-o", str(_LOCK))


if __name__ == "__main__":
    main()
