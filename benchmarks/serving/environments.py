"""Each peer's own environment: made on demand from its own lock, outside the repository, and kept.

A lock holds every package with its hashes and no address (docs/adr/0004); uv takes packages from wherever the user's
configuration says. An environment lies in `<cache>/<peer>-<digest of its lock>`; its stamp is written last, and one
without a stamp is made again. What cannot be made here is an EnvironmentMissingError that says why, never a peer that
is silently not there.

`python -m benchmarks.serving.environments` compiles the locks anew.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.serving.catalogue import PEERS, Peer

PEER_FOLDER = Path(__file__).with_name("peers")
_REPOSITORY = Path(__file__).resolve().parents[2]
_STAMP = "slipway-stamp"
_TIMEOUT_S = 1_800.0
_FOREIGN = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


class EnvironmentMissingError(Exception):
    """A peer's environment could not be made. The message says why."""


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where environments, models and requests are kept: SLIPWAY_BENCH_CACHE, else the user's cache."""
    named = environment.get("SLIPWAY_BENCH_CACHE", "").strip()
    if named:
        return Path(named)
    cache = environment.get("XDG_CACHE_HOME", "").strip() or Path.home() / ".cache"
    return Path(cache) / "slipway-bench"


def lock_of(peer: Peer) -> Path:
    """A peer's lock."""
    return PEER_FOLDER / f"{peer.name}.lock"


def python_of(peer: Peer, folder: Path) -> Path:
    """The Python of a peer's environment, made where there is none yet. Raises EnvironmentMissingError."""
    lock = lock_of(peer)
    digest = hashlib.sha256(f"{peer.python}\n".encode() + lock.read_bytes()).hexdigest()[:12]
    environment = folder / f"{peer.name}-{digest}"
    python = environment / "bin" / "python"
    if not (environment / _STAMP).exists():
        print(f"making the environment of {peer.title}", file=sys.stderr, flush=True)
        shutil.rmtree(environment, ignore_errors=True)
        uv = find_uv()
        _run([uv, "venv", "--no-project", "--quiet", "--python", _interpreter(peer.python), str(environment)])
        _run([uv, "pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(lock)])
        (environment / _STAMP).touch()
    return python


def find_uv() -> str:
    """uv: SLIPWAY_UV, the PATH's, or the one that ./slipway fetched. Raises EnvironmentMissingError."""
    fetched = _REPOSITORY / ".uv" / "venv" / "bin" / "uv"
    for found in (os.environ.get("SLIPWAY_UV"), shutil.which("uv"), str(fetched)):
        if found and Path(found).is_file():
            return found
    raise EnvironmentMissingError("found no uv: install it, or name its binary in SLIPWAY_UV")


def compile_lock(peer: Peer) -> None:
    """Compile a peer's lock anew. Raises EnvironmentMissingError where it cannot be."""
    source = PEER_FOLDER / f"{peer.name}.in"
    options = ["--python-version", peer.python, "--python-platform", peer.platform, "--generate-hashes"]
    options += ["--no-header", "--no-annotate", "--no-emit-index-url", "--quiet", "--upgrade"]
    _run([find_uv(), "pip", "compile", str(source), *options, "-o", str(lock_of(peer))])


def _interpreter(wanted: str) -> str:
    """A Python of that version that runs; where none is found, the version, for uv to find or fetch."""
    return next((found for found in _candidates(wanted) if _is_python(found, wanted)), wanted)


def _candidates(wanted: str) -> Iterator[str]:
    yield sys.executable
    on_path = shutil.which(f"python{wanted}")
    if on_path:
        yield on_path
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from (str(found) for found in sorted(versions.glob(f"{wanted}.*/bin/python")))


def _is_python(path: str, wanted: str) -> bool:
    # -I and another directory: a version manager's stand-in on the PATH may go by files in this one.
    asked = [path, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    ended = subprocess.run(asked, cwd="/", env=_environment(), capture_output=True, text=True, check=False)
    return ended.returncode == 0 and ended.stdout.strip() == wanted


def _run(command: list[str]) -> None:
    try:
        ended = subprocess.run(
            command, env=_environment(), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentMissingError(f"uv {' '.join(command[1:3])}: {error}") from error
    if ended.returncode != 0:
        raise EnvironmentMissingError(f"uv {' '.join(command[1:3])} failed: {_brief(ended.stderr)}")


def _brief(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[-3:])[-400:] or "it said nothing"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _FOREIGN}


def main() -> None:
    """Compile every lock anew."""
    for peer in PEERS:
        compile_lock(peer)
        print(f"compiled {lock_of(peer).relative_to(_REPOSITORY)}")


if __name__ == "__main__":
    main()
