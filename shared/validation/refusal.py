"""Why a drop is refused: a code for programs, a sentence for people.

A refusal is about the drop and will not change by trying again. What a well-formed drop's model is worth is not decided
here but by validation, in verdicts.
"""

from enum import StrEnum

from shared.core.errors import InvalidInputError

MAX_MESSAGE_LENGTH = 500


class RefusalCode(StrEnum):
    """What is wrong with a drop."""

    BAD_PLACE = "bad_place"
    """The blob does not lie at `<model>/<file>`, or its name cannot be read."""
    BAD_NAME = "bad_name"
    """The blob's folder is not a model's name."""
    GONE = "gone"
    """The blob was deleted or overwritten before it was read."""
    UNKNOWN_FORM = "unknown_form"
    """The file name ends in neither `.onnx` nor `.zip`, and it is no folder."""
    NOT_ONNX = "not_onnx"
    """The model is no complete ONNX model: truncated, empty, or something else."""
    UNSERVABLE = "unservable"
    """No request can be answered by the model: its graph has no input, or two outputs of one name."""
    EXTERNAL_DATA = "external_data"
    """A tensor of the model lies, or claims to lie, where it cannot be had whole."""
    NOT_ZIP = "not_zip"
    """The bundle is no readable zip archive: truncated, damaged, or something else."""
    ENCRYPTED = "encrypted"
    """A member of the bundle wants a password."""
    UNSAFE_PATH = "unsafe_path"
    """A file of the bundle or folder is not a plain one with a plain name."""
    DUPLICATE_FILE = "duplicate_file"
    """The bundle holds a name twice."""
    UNEXPECTED_FILE = "unexpected_file"
    """The bundle or folder holds a file that its manifest does not name."""
    MISSING_FILE = "missing_file"
    """The bundle or folder lacks its manifest, or a file that the manifest names."""
    WRONG_DIGEST = "wrong_digest"
    """A file is not the one whose digest the manifest names."""
    TOO_LARGE = "too_large"
    """The drop is, or expands to, more than is allowed."""
    BAD_MANIFEST = "bad_manifest"
    """The manifest, or what stands for it, cannot be read or says what it may not."""
    BAD_DATA = "bad_data"
    """A data file is no NPZ, Parquet or CSV of plain columns with one row count, or does not fit the model."""
    UNSIGNED = "unsigned"
    """It has no signature, and the model's policy requires one."""
    UNKNOWN_KEY = "unknown_key"
    """Its signature was made by a key that the model's policy does not trust."""
    BAD_SIGNATURE = "bad_signature"
    """Its signature is malformed, or does not verify under the key that it names."""
    ALTERED_FILE = "altered_file"
    """A file was changed after it was signed."""
    SIGNATURE_MISMATCH = "signature_mismatch"
    """Its signature verifies, and is about other files."""
    UNSIGNED_FILE = "unsigned_file"
    """A file is not covered by the signature."""
    SANDBOX = "sandbox"
    """Looking at the drop went over a limit, crashed the process that looked, or met what no check foresees."""
    UNSTORABLE = "unstorable"
    """What the drop says of itself cannot be stored."""
    ARCHIVED = "archived"
    """Its content is that of a version that is archived for good."""
    GAVE_UP = "gave_up"
    """Registration failed too often, for the reason that the message ends in."""


class DropRefusedError(InvalidInputError):
    """A drop is not well formed."""

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def excerpt(text: object, length: int = 300) -> str:
    """Text from outside as one line that may stand in a message: cut to `length`, nothing unprintable in it."""
    line = " ".join(str(text).split())
    plain = "".join(character if character.isprintable() else "?" for character in line)
    return plain if len(plain) <= length else plain[: length - 3] + "..."
