"""Where drops lie: which drop a blob of the incoming container belongs to, and whether that is a place for one.

A blob `<model>/<file>` is a drop. The blobs `<model>/<folder>/...` are one together, named with a slash at the end.
"""

import re
from pathlib import PurePosixPath

from shared.core.errors import InvalidInputError
from shared.core.ids import ModelName, model_name
from shared.registration.documents import NO_MODEL
from shared.validation.refusal import DropRefusedError, RefusalCode

FORMS = (".onnx", ".zip")
"""What the name of a drop that is one file ends in."""

_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def drop_of(blob: str) -> str:
    """The drop that a blob belongs to: itself, or `<model>/<folder>/`."""
    parts = blob.split("/", 2)
    return blob if len(parts) < 3 else f"{parts[0]}/{parts[1]}/"


def is_folder(drop: str) -> bool:
    """Whether a drop is a folder, and not one file."""
    return drop.count("/") == 2


def partition_of(drop: str) -> str:
    """The partition of a drop's document: the model that its place names, or NO_MODEL."""
    try:
        return model_name(drop.split("/", 1)[0]) if "/" in drop else NO_MODEL
    except InvalidInputError:
        return NO_MODEL


def file_place(drop: str) -> tuple[ModelName, str]:
    """The model and the file name of a drop that is one file. Raises DropRefusedError."""
    parts = PurePosixPath(drop).parts
    if len(parts) != 2 or "/".join(parts) != drop:
        raise DropRefusedError(
            RefusalCode.BAD_PLACE,
            f"a drop lies at incoming/<model>/<file> or in a folder incoming/<model>/<folder>/, and this one at "
            f"incoming/{drop}",
        )
    name = _model(parts[0])
    if PurePosixPath(parts[1]).suffix.lower() not in FORMS:
        raise DropRefusedError(
            RefusalCode.UNKNOWN_FORM,
            f"a drop is an .onnx file, a .zip bundle or a folder, and this one is {parts[1]!r}",
        )
    return name, parts[1]


def folder_place(drop: str) -> ModelName:
    """The model of a drop that is a folder. Raises DropRefusedError."""
    model, folder, _ = drop.split("/")
    name = _model(model)
    if not _FOLDER.fullmatch(folder):
        raise DropRefusedError(
            RefusalCode.BAD_PLACE,
            f"a drop's folder is named {folder[:100]!r}: use 1 to 128 letters, digits, dots, hyphens and underscores, "
            "and no dot or hyphen in front",
        )
    return name


def _model(text: str) -> ModelName:
    try:
        return model_name(text)
    except InvalidInputError as error:
        raise DropRefusedError(RefusalCode.BAD_NAME, str(error)) from error
