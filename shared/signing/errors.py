"""Why a signature is refused: a code for programs, a sentence for people."""

from enum import StrEnum

from shared.core.errors import InvalidInputError


class SigningCode(StrEnum):
    """What is wrong with a signature, or with the files that it is about."""

    UNKNOWN_KEY = "unknown_key"
    """It is well formed, and none of the trusted keys made it."""
    BAD_SIGNATURE = "bad_signature"
    """It is malformed, of a form that is not taken, or does not verify under the trusted key that it names."""
    ALTERED_FILE = "altered_file"
    """It is the signature of these files, of which one was changed since."""
    SIGNATURE_MISMATCH = "signature_mismatch"
    """It verifies, and is about other files."""
    UNSIGNED_FILE = "unsigned_file"
    """A file is there that it does not cover."""
    MISSING_FILE = "missing_file"
    """It covers a file that is not there."""


class SigningError(InvalidInputError):
    """A signature does not stand for the files that it came with."""

    def __init__(self, code: SigningCode, message: str) -> None:
        super().__init__(message)
        self.code = code
