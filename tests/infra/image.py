"""An image's Dockerfile, read, and its steps taken in a folder: what stands in for a builder of images.

Guarantees: what is copied and run is what the Dockerfile says, instruction by instruction, with the build context that
git tracks and the ignore file lets through. The base image is stood in for by an empty environment of the Python that
runs the tests. It knows the instructions that ours uses, and refuses others, and paths that it would not keep in the
folder.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.unit.project.repository import ROOT, tracked_files

DOCKERFILE = ROOT / "aks-serving" / "Dockerfile"
_IGNORE = DOCKERFILE.with_name("Dockerfile.dockerignore")
_KEPT = re.compile(r"(?<![\w.-])(/app|/build|/usr/local|/var/cache/slipway)(?![\w-])")
_ABSOLUTE = re.compile(r"(?<![\w./:<>-])/[\w.-][\w./-]*")
_TIMEOUT_S = 900.0
_OWNER = re.compile(r"--(owner|group)=10001 ")
_SAID = {"LABEL", "EXPOSE", "STOPSIGNAL", "USER", "HEALTHCHECK", "ENTRYPOINT"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction: `COPY`, its options (`--from=build`) and the rest."""

    name: str
    options: tuple[str, ...] = ()
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage: what it starts from, its name, and its instructions."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def texts(self, name: str) -> list[str]:
        """What the stage's instructions of that name say."""
        return [each.text for each in self.instructions if each.name == name]

    def pairs(self, name: str) -> dict[str, str]:
        """What its ENV or LABEL instructions set."""
        words = [word for text in self.texts(name) for word in shlex.split(text)]
        return dict(word.split("=", 1) for word in words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A folder that holds what the image would."""

    folder: Path
    stage: Stage

    def here(self, text: str) -> str:
        """The text, with the image's paths as they are in the folder."""
        return _here(text, self.folder)

    def environment(self) -> dict[str, str]:
        """What a container of the image has in its environment; nothing of ours."""
        return {name: self.here(value) for name, value in self.stage.pairs("ENV").items()}

    def entry_point(self) -> list[str]:
        """The command of a container."""
        (text,) = self.stage.texts("ENTRYPOINT")
        return [self.here(word) for word in json.loads(text)]

    def health_check(self) -> list[str]:
        """The command that says whether it is well."""
        (text,) = self.stage.texts("HEALTHCHECK")
        return [self.here(word) for word in json.loads(text.removeprefix("CMD "))]

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file: its size, and when it was changed."""
        found = (path for path in self.folder.rglob("*") if not path.is_dir() or path.is_symlink())
        return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}


def read(text: str) -> tuple[tuple[Instruction, ...], list[Stage]]:
    """The instructions before the first FROM, and the stages in their order."""
    first: list[Instruction] = []
    stages: list[Stage] = []
    for each in _instructions(text):
        if each.name == "FROM":
            base, _, name = re.split(r"\s+(as|AS)\s+", each.text)
            stages.append(Stage(base=base, name=name, instructions=()))
        elif not stages:
            first.append(each)
        else:
            last = stages[-1]
            stages[-1] = Stage(base=last.base, name=last.name, instructions=(*last.instructions, each))
    return tuple(first), stages


def build(folder: Path) -> Built:
    """Take the Dockerfile's steps in the folder. Raises AssertionError where one fails, with what it said."""
    _, stages = read(DOCKERFILE.read_text("utf-8"))
    base, current = folder / "base", folder / "image"
    _make_base(base, current)
    for stage in stages:
        shutil.copytree(base, current, symlinks=True)
        _Builder(folder=folder, current=current).take(stage)
        if stage is not stages[-1]:
            # Every stage sees itself at the same place, as in an image: environments name their own place.
            current.rename(folder / f"stage-{stage.name}")
    return Built(folder=current, stage=stages[-1])


def context() -> set[str]:
    """The files that the build is given."""
    patterns = [line for line in _IGNORE.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return {path for path in tracked_files() if not _is_ignored(path, patterns)}


@dataclass(slots=True, kw_only=True)
class _Builder:
    folder: Path
    current: Path
    directory: str = "/"

    def take(self, stage: Stage) -> None:
        for each in stage.instructions:
            match each.name:
                case "WORKDIR":
                    self.directory = each.text
                    self._path(each.text).mkdir(parents=True, exist_ok=True)
                case "COPY":
                    self._copy(each)
                case "RUN":
                    self._run(each.text)
                case "ENV":
                    pass  # for who runs the image: no step of ours follows one
                case "ARG":
                    pass
                case name:
                    assert name in _SAID, f"this stand-in for a builder knows no {name}"

    def _path(self, text: str) -> Path:
        absolute = text if text.startswith("/") else f"{self.directory}/{text}"
        assert _KEPT.match(absolute), f"{absolute} is not among the paths that are kept in a folder"
        return Path(_here(absolute, self.current))

    def _copy(self, instruction: Instruction) -> None:
        source, target = instruction.text.split()
        place = self._path(target)
        match instruction.options:
            case ():
                self._copy_from_context(source, place, into=target.endswith("/"))
            case (option,) if option.startswith("--from="):
                stage = self.folder / f"stage-{option.removeprefix('--from=')}"
                shutil.copytree(_here(source, stage), place, symlinks=True, dirs_exist_ok=True)
            case options:
                raise AssertionError(f"this stand-in for a builder knows no {options}")

    @staticmethod
    def _copy_from_context(source: str, place: Path, *, into: bool) -> None:
        files = context()
        if source in files:
            found = {source: place / Path(source).name if into else place}
        else:
            found = {path: place / path.removeprefix(f"{source}/") for path in files if path.startswith(f"{source}/")}
        assert found, f"COPY {source}: the build context holds no such file"
        for path, target in found.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, target)

    def _run(self, text: str) -> None:
        strange = [path for path in _ABSOLUTE.findall(text) if not _KEPT.match(path)]
        assert not strange, f"RUN names {strange}, which are not among the paths that are kept in a folder"
        # Who runs the tests need not be root; who runs the server is then the owner of what it makes.
        command = _here(_OWNER.sub("", text), self.current)
        ended = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.current if self.directory == "/" else self._path(self.directory),
            env=_ours() | {"PATH": f"{self.current}/usr/local/bin:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        assert ended.returncode == 0, f"RUN {command}\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}"


def _make_base(base: Path, current: Path) -> None:
    """What stands in for the base image: Python, pip, and the folder that pip is made from."""
    subprocess.run(
        [sys.executable, "-m", "venv", str(current / "usr" / "local")], env=_ours(), timeout=_TIMEOUT_S, check=True
    )
    (current / "usr" / "local" / "lib" / "python3.13" / "ensurepip").mkdir()
    current.rename(base)


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, rest = line.split(maxsplit=1)
        options = []
        while rest.startswith("--"):
            option, rest = rest.split(maxsplit=1)
            options.append(option)
        yield Instruction(name=name, options=tuple(options), text=rest)


def _is_ignored(path: str, patterns: list[str]) -> bool:
    parts = path.split("/")
    within = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    ignored = False
    for pattern in patterns:
        if any(fnmatch.fnmatch(part, pattern.removeprefix("!")) for part in within):
            ignored = not pattern.startswith("!")
    return ignored


def _here(text: str, folder: Path) -> str:
    return _KEPT.sub(lambda found: f"{folder}{found.group(1)}", text)


def _ours() -> dict[str, str]:
    """Our environment, by which pip finds packages as its user told it; less what would lead Python elsewhere."""
    foreign = ("PYTHON", "VIRTUAL_ENV", "COVERAGE")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
