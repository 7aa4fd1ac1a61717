"""The manifest of a drop, `slipway.yaml`: what the model is for, and which file of the bundle is which.

What it claims is never believed: metrics are measured, and files are checked. Reading one needs a YAML parser, so the
text is parsed in the sandbox only; importing this module loads none.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from shared.core.errors import InvalidInputError
from shared.core.yamltext import yaml_place, yaml_problem

if TYPE_CHECKING:
    import yaml

MANIFEST_NAME = "slipway.yaml"
DATA_ENDINGS = (".npz", ".parquet", ".csv")
MAX_MANIFEST_BYTES = 64 * 1024
MAX_NAMED_FILES = 1_000
"""The files that a manifest may name with their digests."""
MAX_FILES = MAX_NAMED_FILES + 2
"""The files that a drop may have: the manifest cannot name itself, nor the signature, which is made over it."""
_MAX_DEPTH = 8
_MAX_ENTRIES = 100
MAX_WHOLE_NUMBER = 2**53 - 1
"""The largest that the document store keeps exactly."""


def _exact(value: object) -> object:
    # Beside the type float, an int that is too large would become the nearest float.
    if isinstance(value, int) and abs(value) > MAX_WHOLE_NUMBER:
        raise ValueError(f"whole numbers are exact up to {MAX_WHOLE_NUMBER}: write it as text")
    return value


type _Key = Annotated[str, StringConstraints(min_length=1, max_length=100)]
type _Parameter = Annotated[
    Annotated[str, StringConstraints(max_length=500)] | int | FiniteFloat | bool, BeforeValidator(_exact)
]
type _Class = Annotated[Annotated[str, StringConstraints(max_length=200)] | int, BeforeValidator(_exact)]
_STEP = "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
type _FileName = Annotated[str, StringConstraints(max_length=128, pattern=f"^{_STEP}$")]
_PATH = f"{_STEP}(/{_STEP}){{0,3}}"
_MAX_PATH_LENGTH = 256
type DropPath = Annotated[str, StringConstraints(max_length=_MAX_PATH_LENGTH, pattern=f"^{_PATH}$")]
"""A file's name within a drop: plain names, up to three directories deep."""
_SHA256 = "(sha256:)?[0-9a-f]{64}"
type _Sha256 = Annotated[str, StringConstraints(pattern=f"^{_SHA256}$")]
_FORMS = {
    f"^{_STEP}$": "use a plain file name without directories",
    f"^{_PATH}$": "use letters, digits, '.', '_' and '-', begin with no '.', and nest at most three directories",
    f"^{_SHA256}$": "use the SHA-256 of the file, 64 hexadecimal digits in small letters",
}
"""What a text is to be, by the pattern that it does not match."""


class Tolerance(BaseModel):
    """How far two answers of one output may differ: by `atol + rtol * |expected|`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rtol: float = Field(default=1e-4, ge=0, le=1)
    atol: float = Field(default=1e-5, ge=0, le=1e6)

    @field_validator("rtol", "atol", mode="before")
    @classmethod
    def _no_truth_value(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("Input should be a number")  # noqa: TRY004 - the kind of error that pydantic takes
        return value


class Task(StrEnum):
    """What a model predicts: a class, or a number."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"


class Manifest(BaseModel):
    """A drop's manifest. Every key but `task` may be left out; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    task: Task = Field(strict=False)
    model: _FileName = "model.onnx"
    """The bundle's model, an ONNX file. Names are plain: no directories."""
    validation: DropPath | None = None
    """The data to measure the model on, as NPZ, Parquet or CSV: a column or array per graph input, and the labels."""
    reference: DropPath | None = None
    """What the features usually look like, in the same forms."""
    label: _Key = "label"
    """The column or array of a data file that holds what the model should have predicted."""
    prediction: _Key | None = None
    """The graph output to compare with the labels; without it the model's outputs tell."""
    probability: _Key | None = None
    """The graph output with a classifier's probabilities; without it the model's outputs tell."""
    feature_names: tuple[_Key, ...] = Field(default=(), max_length=10_000, strict=False)
    """The names of the columns of the model's one matrix input, in their order."""
    inputs: dict[_Key, Annotated[tuple[_Key, ...], Field(min_length=1, max_length=10_000, strict=False)]] = Field(
        default_factory=dict, max_length=1_000
    )
    """For each graph input the columns of a Parquet or CSV file that it takes, where they have other names."""
    positive_class: _Class | None = None
    """The class that precision-recall curves, calibration and fairness look at, for two classes: the later one
    without it."""
    slices: tuple[_Key, ...] = Field(default=(), max_length=100, strict=False)
    """Columns of the validation data by whose parts the model is judged; without it all features, as advice."""
    protected: tuple[_Key, ...] = Field(default=(), max_length=20, strict=False)
    """Columns of the validation data whose groups are compared for fairness. They need not be features."""
    tolerances: dict[_Key, Tolerance] = Field(default_factory=dict, max_length=_MAX_ENTRIES)
    """How far each output may differ on another machine, where the default does not do."""
    files: dict[DropPath, _Sha256] = Field(default_factory=dict, max_length=MAX_NAMED_FILES)
    """Every other file of a folder drop, with the SHA-256 of its content. What makes a folder complete."""
    description: Annotated[str, StringConstraints(max_length=2_000)] = ""
    author: Annotated[str, StringConstraints(max_length=200)] = ""
    training_data_version: Annotated[str, StringConstraints(max_length=200)] = ""
    git_commit: Annotated[str, StringConstraints(max_length=64)] = ""
    run_id: Annotated[str, StringConstraints(max_length=200)] = ""
    """The training run that it came from, as in MLflow's run id."""
    tags: dict[_Key, Annotated[str, StringConstraints(max_length=200)]] = Field(
        default_factory=dict, max_length=_MAX_ENTRIES
    )
    parameters: dict[_Key, _Parameter] = Field(default_factory=dict, max_length=_MAX_ENTRIES)
    metrics: dict[_Key, FiniteFloat] = Field(default_factory=dict, max_length=_MAX_ENTRIES)
    """What the author claims to have measured."""

    @model_validator(mode="after")
    def _files_are_told_apart(self) -> Self:
        if not self.model.endswith(".onnx"):
            raise ValueError(f"the model is the file {self.model!r}: name an .onnx file")
        data = [name for name in (self.validation, self.reference) if name is not None]
        for name in data:
            if not name.endswith(DATA_ENDINGS):
                raise ValueError(f"{name!r} is no data file: use a name that ends in {', '.join(DATA_ENDINGS)}")
        if len(set(data)) != len(data):
            raise ValueError(f"{data[0]!r} is named as validation and as reference: use two files")
        return self


def is_drop_path(name: str) -> bool:
    """Whether a text is a name that a file of a drop may have."""
    return len(name) <= _MAX_PATH_LENGTH and re.fullmatch(_PATH, name) is not None


def parse_manifest(text: bytes) -> Manifest:
    """Read a manifest from YAML. Raises InvalidInputError naming the first things wrong with it."""
    return manifest_from(parse_mapping(text))


def parse_mapping(text: bytes, *, name: str = MANIFEST_NAME, max_bytes: int = MAX_MANIFEST_BYTES) -> Mapping[Any, Any]:
    """Read a mapping from the YAML of the file `name`. Raises InvalidInputError.

    Anchors and aliases are refused, for they let a small text grow without bound; so are repeated keys and deep
    nesting. For the sandbox: YAML from outside is parsed nowhere else.
    """
    try:
        value = _load_yaml(text, max_bytes)
    except InvalidInputError as error:
        raise InvalidInputError(f"{name} {error}") from error
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{name} holds no mapping: write `key: value` lines, such as `task: classification`")
    return value


def manifest_from(value: Mapping[Any, Any], *, source: str = MANIFEST_NAME) -> Manifest:
    """A manifest from its keys and values, which came from `source`.

    Raises InvalidInputError naming the first things wrong with it.
    """
    try:
        return Manifest.model_validate(dict(value))
    except ValidationError as error:
        said = [_said(detail) for detail in error.errors(include_url=False)]
        more = f" (and {len(said) - 3} more)" if len(said) > 3 else ""
        raise InvalidInputError(f"{source}: {'; '.join(said[:3])}{more}") from error


def _said(detail: ErrorDetails) -> str:
    key = ".".join(str(part)[:100] for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key!r}: the keys are {', '.join(Manifest.model_fields)}"
    if detail["type"] == "missing":
        return f"the key {key!r} is missing"
    if detail["type"] == "string_pattern_mismatch":
        return f"{key} is {str(detail['input'])[:100]!r}: {_FORMS[detail['ctx']['pattern']]}"
    if detail["type"] == "float_type" and _reads_as_number(detail["input"]):
        advice = "to YAML it is text: write it without quotes and with a dot, as in 0.9 or 1.0e-3"
        return f"{key} is {detail['input'][:100]!r}: {detail['msg']}; {advice}"
    if not key:
        return detail["msg"].removeprefix("Value error, ")
    return f"{key} is {str(detail['input'])[:100]!r}: {detail['msg'].removeprefix('Value error, ')}"


def _reads_as_number(value: object) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def _load_yaml(text: bytes, max_bytes: int) -> object:
    """What a text holds. Raises InvalidInputError with the words that follow the file's name."""
    import yaml  # noqa: PLC0415 - the functions process never loads a YAML parser

    if len(text) > max_bytes:
        raise InvalidInputError(f"has more than the {max_bytes} bytes that are read")
    try:
        decoded = text.decode("utf-8-sig")
        _refuse_growth(yaml.parse(decoded, Loader=yaml.SafeLoader))
        loader = yaml.SafeLoader(decoded)
        root = loader.get_single_node()
        _refuse_repeated_keys(root)
        _refuse_unreadable_values(loader, root)
        return None if root is None else loader.construct_document(root)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidInputError(f"is not YAML: {yaml_problem(error, decoded)}") from error


def _refuse_growth(events: "Iterable[yaml.Event]") -> None:
    """Looks at the parser's events, which are made one at a time, before anything is built from them."""
    import yaml  # noqa: PLC0415

    depth = 0
    for event in events:
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            raise InvalidInputError(f"has an anchor or alias ({anchor[:40]!r}): write values out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise InvalidInputError(f"nests more than {_MAX_DEPTH} levels")


def _refuse_repeated_keys(node: "yaml.Node | None") -> None:
    import yaml  # noqa: PLC0415

    if isinstance(node, yaml.MappingNode):
        keys = Counter(str(key.value) for key, _ in node.value)
        for repeated in (key for key, count in keys.items() if count > 1):
            raise InvalidInputError(f"has the key {repeated[:100]!r} twice: keep one")
        if "<<" in keys:
            raise InvalidInputError("merges keys with '<<': write them out")
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            for part in child if isinstance(child, tuple) else (child,):
                _refuse_repeated_keys(part)


def _refuse_unreadable_values(loader: "yaml.SafeLoader", node: "yaml.Node | None") -> None:
    """Refuses a value that is not of the kind that its tag or its form says, at which the library stumbles."""
    import yaml  # noqa: PLC0415

    if isinstance(node, yaml.ScalarNode):
        try:
            # As text as well: Python writes whole numbers of up to 4,300 digits, which hexadecimal ones may exceed.
            str(loader.construct_object(node))
        except (ValueError, LookupError, AttributeError, ArithmeticError) as error:
            kind = node.tag.rpartition(":")[2][:40]
            raise InvalidInputError(
                f"is not YAML: {yaml_place(node.start_mark)}: {node.value[:40]!r} cannot be read as {kind}: "
                "put it in quotes where it is text"
            ) from error
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            for part in child if isinstance(child, tuple) else (child,):
                _refuse_unreadable_values(loader, part)
