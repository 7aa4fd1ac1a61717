"""What passes between the process that asks and the sandboxed one that looks, and the names they both use.

The request is trusted: our own process wrote it. Nothing that comes back is: it is read by these strict models, within
a size limit, and stands for no more than its form.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from shared.registry.manifest import MAX_FILES, DropPath, Manifest
from shared.registry.policy import SigningPolicy, ValidationPolicy
from shared.validation.refusal import MAX_MESSAGE_LENGTH, RefusalCode
from shared.validation.report import ValidationReport

MODEL_FILE = "model.onnx"
VALIDATION_FILE = "validation.npz"
REFERENCE_FILE = "reference.npz"
GOLDEN_FILE = "golden.json"
PROFILE_FILE = "profile.json"
PERFORMANCE_FILE = "performance.json"
CHECKED_FILE = "checked.onnx"
"""What the ONNX checker is given: a model without the values of its large tensors."""
CHECKED_VALUES_FILE = "checked.values"
"""Where these are said to lie; it stays empty."""

MAX_GOLDEN_BYTES = 8 * 1024 * 1024
MAX_PROFILE_BYTES = 8 * 1024 * 1024
MAX_PERFORMANCE_BYTES = 1024 * 1024
MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""Above what a report can have: all its parts are bounded."""

EXIT_MEMORY = 77
"""The child's exit code when it ran out of the memory that it may use."""
EXIT_UNUSABLE = 78
"""The child's exit code when it cannot work here at all: a package is missing, or a limit cannot be set."""

LACKS_WALLS = "the sandbox lacks walls: "
"""How the line on the child's standard error begins that names the walls which the system would not give."""


class Stage(StrEnum):
    """What the child is doing, in the words that complete "while ..."."""

    STARTING = "starting"
    UNPACKING = "unpacking the bundle"
    CHECKING = "checking the model file"
    READING_DATA = "reading the data files"
    LOADING = "loading the model"
    RUNNING = "running the model"
    CHAMPION = "running the champion"
    MEASURING = "computing metrics"
    REPEATING = "running the same rows again"
    RUNNING_APART = "running rows apart and in a batch"
    RUNNING_OUTLIER = "running rows beside an outlier"
    RUNNING_NAN = "running rows of NaN"
    RUNNING_INFINITY = "running rows of infinities"
    RUNNING_EXTREMES = "running rows of extreme values"
    RUNNING_EMPTY = "running an empty batch"
    TIMING = "measuring latency"
    GOLDEN = "making golden rows"
    PROFILING = "making the reference profile"


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Limits(_Wire):
    """The limits that the child sets on itself before it looks at anything."""

    memory_bytes: int
    cpu_s: int
    file_bytes: int
    open_files: int


class ModelFiles(_Wire):
    """An ONNX file and the files that hold tensors of it, by the names that the model knows them by."""

    path: Path
    name: str = MODEL_FILE
    external: dict[str, Path] = Field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(path.stat().st_size for path in (self.path, *self.external.values()))


class IntakeTask(_Wire):
    """Is a drop well formed? A file `path`, dropped as `filename`, or the files of a folder by their names in it.

    A bundle is unpacked into the working directory.
    """

    task: Literal["intake"] = "intake"
    path: Path | None = None
    filename: str
    folder: dict[str, Path] = Field(default_factory=dict)
    metadata: dict[str, str] = Field(default_factory=dict)
    """The dropped blob's own metadata."""
    signing: SigningPolicy = SigningPolicy()

    @property
    def is_bundle(self) -> bool:
        """Whether the drop is a zip bundle, by its name."""
        return self.path is not None and self.filename.lower().endswith(".zip")


class ManifestTask(_Wire):
    """What does the manifest of a folder drop say? The file `path` is parsed and nothing else."""

    task: Literal["manifest"] = "manifest"
    path: Path


class ValidateTask(_Wire):
    """Is the model fit to serve?"""

    task: Literal["validate"] = "validate"
    model: ModelFiles
    validation: Path | None
    reference: Path | None
    manifest: Manifest
    policy: ValidationPolicy
    champion: ModelFiles | None = None
    """The version to compare with, which was validated before."""
    champion_version: int | None = None
    champion_manifest: Manifest | None = None
    """The champion's own, where it is not the version's: it names the outputs that hold predictions."""
    champion_unusable: str = ""
    """Where there is a champion whose files cannot be had, why, in words that follow "the champion"."""


class Request(_Wire):
    """What the child is to do. It dies with the process `parent_pid`, and is ended after `wall_s`."""

    parent_pid: int
    wall_s: float
    limits: Limits
    work: Annotated[IntakeTask | ManifestTask | ValidateTask, Field(discriminator="task")]


class Progress(_Wire):
    """The child has begun a stage."""

    kind: Literal["progress"] = "progress"
    stage: Stage


class FileRole(StrEnum):
    """What a file of a drop is for."""

    MODEL = "model"
    EXTERNAL = "external"
    """It holds tensors of the model; its name is the one that the model knows it by."""
    VALIDATION = "validation"
    REFERENCE = "reference"
    SIGNING = "signing"


def part_file(number: int) -> str:
    """The name in the working directory of a bundle's file, counted from 1 as they are unpacked."""
    return f"part-{number}"


class TakenFile(_Wire):
    """A file of a well-formed drop. `file` is its name in the working directory, or in the folder that was dropped.

    A bare model's own is empty: it is the drop itself.
    """

    role: FileRole
    name: DropPath
    file: str


class Accepted(_Wire):
    """Intake's answer for a well-formed drop. The answer to a ManifestTask has no files."""

    kind: Literal["accepted"] = "accepted"
    manifest: Manifest
    files: tuple[TakenFile, ...] = Field(default=(), max_length=MAX_FILES)
    signed_by: str = ""
    """The SHA-256 fingerprint (of the DER form) of the trusted key that the drop's signature verified under."""


class Refused(_Wire):
    """Intake's answer for a drop that is not well formed."""

    kind: Literal["refused"] = "refused"
    code: RefusalCode
    message: Annotated[str, StringConstraints(min_length=1, max_length=MAX_MESSAGE_LENGTH)]


class Validated(_Wire):
    """Validation's answer."""

    kind: Literal["validated"] = "validated"
    report: ValidationReport


type Answer = Accepted | Refused | Validated
type Line = Annotated[Progress | Accepted | Refused | Validated, Field(discriminator="kind")]

LINE: TypeAdapter[Line] = TypeAdapter(Line)
"""Reads one line of the child's output: any number of `Progress`, then one answer."""
