"""The peers of the benchmarks of drift, each in an environment of its own, made on demand from its own lock.

`python -m benchmarks.drift_environments` compiles the locks anew. An environment that cannot be made is an
EnvironmentMissingError that says why.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving.environments import EnvironmentMissingError, cache_folder, find_uv

FOLDER = Path(__file__).with_name("drift_peers")
_TIMEOUT_S = 3_600.0
_STAMP = "slipway-stamp"
_BRIEF = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPeer:
    """A library to be measured against."""

    name: str
    title: str
    python: str


EVIDENTLY = DriftPeer(name="evidently", title="Evidently", python="3.13")
NANNYML = DriftPeer(name="nannyml", title="NannyML", python="3.12")


class StoppedError(EnvironmentMissingError):
    """A peer took longer than it was given, and was stopped."""


def ask(peer: DriftPeer, *arguments: str, within_s: float = _TIMEOUT_S) -> Any:  # noqa: ANN401 - the JSON that a script prints last
    """Run a peer's script in its environment. Raises EnvironmentMissingError where there is none, or it failed.

    Of these is StoppedError, where it is not done `within_s`.
    """
    script = FOLDER / f"{peer.name}_drift.py"
    command = [str(_python_of(peer)), "-W", "ignore", str(script), *arguments]
    environment = {**os.environ, "DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1"}
    said = _run(command, environment, within_s=within_s)
    return json.loads(said.strip().splitlines()[-1])


def _python_of(peer: DriftPeer) -> Path:
    lock = FOLDER / f"{peer.name}.lock"
    digest = hashlib.sha256(f"{peer.python}\n".encode() + lock.read_bytes()).hexdigest()[:12]
    environment = cache_folder(os.environ) / f"drift-{peer.name}-{digest}"
    python = environment / "bin" / "python"
    if not (environment / _STAMP).exists():
        print(f"making the environment of {peer.title}", file=sys.stderr, flush=True)
        shutil.rmtree(environment, ignore_errors=True)
        _run([find_uv(), "venv", "--no-project", "--quiet", "--python", _interpreter(peer.python), str(environment)])
        _run([find_uv(), "pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(lock)])
        (environment / _STAMP).touch()
    return python


def _interpreter(wanted: str) -> str:
    """A Python of that version; where none is found, the version, for uv to find or fetch."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    return next((str(found) for found in sorted(versions.glob(f"{wanted}.*/bin/python"))), wanted)


def _run(command: list[str], environment: dict[str, str] | None = None, *, within_s: float = _TIMEOUT_S) -> str:
    try:
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=within_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise StoppedError(f"{Path(command[0]).name}: it was not done in {within_s:g} s, and was stopped") from error
    except OSError as error:
        raise EnvironmentMissingError(f"{Path(command[0]).name}: {error}") from error
    if ended.returncode != 0:
        raise EnvironmentMissingError(f"{Path(command[0]).name} failed: {ended.stderr.strip()[-_BRIEF:]}")
    return ended.stdout


def main() -> None:
    """Compile the locks anew."""
    for peer in (EVIDENTLY, NANNYML):
        options = ["--python-version", peer.python, "--python-platform", "linux", "--generate-hashes", "--no-header"]
        options += ["--no-annotate", "--no-emit-index-url", "--quiet", "--upgrade"]
        lock = FOLDER / f"{peer.name}.lock"
        _run([find_uv(), "pip", "compile", str(lock.with_suffix(".in")), *options, "-o", str(lock)])
        print(f"compiled {lock.name}")


if __name__ == "__main__":
    main()
