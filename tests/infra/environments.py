"""Environments of tools whose packages and ours exclude each other, or that are far too large for ours.

Each is made on demand from its lock in infra/checks, which holds a hash of every package, lies in the user's cache
under the digest of the lock, and is kept. `python -m tests.infra.environments` compiles the locks anew.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.serving.environments import EnvironmentMissingError, cache_folder, find_uv

CHECKS = Path(__file__).parents[2] / "infra" / "checks"
NAMES = ("azure", "checkov")
_PYTHON = "3.13"
_STAMP = "slipway-stamp"
_TIMEOUT_S = 1_200.0


def environment_of(name: str) -> Path:
    """An environment, made where there is none yet; only one process makes it. Raises EnvironmentMissingError."""
    lock = CHECKS / f"{name}.lock"
    digest = hashlib.sha256(_PYTHON.encode() + lock.read_bytes()).hexdigest()[:12]
    folder = cache_folder(os.environ)
    environment = folder / f"{name}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.making").open("w") as making:
        fcntl.flock(making, fcntl.LOCK_EX)
        if not (environment / _STAMP).exists():
            shutil.rmtree(environment, ignore_errors=True)
            python = environment / "bin" / "python"
            _uv("venv", "--no-project", "--quiet", "--python", _PYTHON, str(environment))
            _uv("pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(lock))
            (environment / _STAMP).touch()
    return environment


def _uv(*arguments: str) -> None:
    command = [find_uv(), *arguments]
    variables = {key: value for key, value in os.environ.items() if key not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    try:
        ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentMissingError(f"uv {arguments[0]}: {error}") from error
    if ended.returncode != 0:
        raise EnvironmentMissingError(f"uv {arguments[0]} failed: {ended.stderr.strip()[-400:]}")


def main() -> None:
    """Compile the locks anew."""
    options = ["--python-version", _PYTHON, "--python-platform", "linux", "--generate-hashes", "--no-header"]
    options += ["--no-annotate", "--no-emit-index-url", "--quiet", "--upgrade"]
    for name in NAMES:
        _uv("pip", "compile", str(CHECKS / f"{name}.in"), *options, "-o", str(CHECKS / f"{name}.lock"))


if __name__ == "__main__":
    main()
