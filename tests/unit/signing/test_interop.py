"""The reference implementation beside ours: what it signs we verify, what we sign it verifies, what it refuses we do.

It is a development-only package (docs/adr/0007).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.signing.bundle import SIGNATURE_FILE
from shared.signing.errors import SigningCode, SigningError
from shared.signing.verify import verify_drop
from tests.unit.signing import made

CONTENT = {"slipway.yaml": b"task: classification", "model.onnx": b"model", "data/weights.bin": b"w" * 1000}


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    folder = tmp_path / "drop"
    for name, data in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def library() -> Any:
    """It has no types."""
    import model_signing

    return model_signing


def library_signs(folder: Path, private: bytes, **hashing: Any) -> None:
    """As the library's own command does: every file of the folder but the signature itself."""
    model_signing = library()
    key = folder.parent / "private.pem"
    key.write_bytes(private)
    config = model_signing.hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE])
    if hashing.pop("shards", False):
        config = config.use_shard_serialization(**hashing)
    elif hashing:
        config = config.use_file_serialization(**hashing)
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(config)
    signer.sign(folder, folder / SIGNATURE_FILE)


def library_verifies(folder: Path, private: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from pydantic import ValidationError

    model_signing = library()
    key = folder.parent / "public.pem"
    key.write_text(made.public_key(private).pem)
    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=key)
    verifier.set_hashing_config(model_signing.hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE]))
    try:
        verifier.verify(folder, folder / SIGNATURE_FILE)
    except (ValueError, KeyError, IndexError, TypeError, InvalidSignature, ValidationError):
        return False
    return True


def ours(folder: Path, private: bytes) -> str:
    """The code of our refusal; empty where it verifies."""
    try:
        signing = (folder / SIGNATURE_FILE).read_bytes()
        verify_drop(signing, made.digests(folder), [made.public_key(private).pem])
    except SigningError as error:
        return error.code
    return ""


@pytest.mark.parametrize("curve", made.CURVES)
def test_what_the_library_signs_verifies_here(drop: Path, curve: str) -> None:
    library_signs(drop, made.private_key(curve))
    assert ours(drop, made.private_key(curve)) == ""


@pytest.mark.parametrize("curve", made.CURVES)
def test_what_is_signed_here_verifies_in_the_library(drop: Path, curve: str) -> None:
    private = made.private_key(curve)
    (drop / SIGNATURE_FILE).write_bytes(made.signed(made.digests(drop), private))
    assert library_verifies(drop, private)


@pytest.mark.parametrize(
    "hashing", [{"shards": True}, {"hashing_algorithm": "blake2"}, {"hashing_algorithm": "blake3"}]
)
def test_other_ways_to_hash_are_refused_clearly(drop: Path, hashing: dict[str, Any]) -> None:
    library_signs(drop, made.private_key(), **hashing)
    assert ours(drop, made.private_key()) == SigningCode.BAD_SIGNATURE


def test_a_signature_of_the_model_file_alone_is_about_something_else(drop: Path) -> None:
    model_signing = library()
    key = drop.parent / "private.pem"
    key.write_bytes(made.private_key())
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=key)
    signer.sign(drop / "model.onnx", drop / SIGNATURE_FILE)
    assert ours(drop, made.private_key()) == SigningCode.SIGNATURE_MISMATCH


def _signature(path: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(drop: Path) -> None:
        file = drop / SIGNATURE_FILE
        value = json.loads(file.read_bytes())
        for part in path.split("."):
            value = value[int(part) if part.isdecimal() else part]
        file.write_bytes(made.changed(file.read_bytes(), path, change(value)))

    return apply


def _resigned(path: str, value: Any) -> Callable[[Path], None]:
    def apply(drop: Path) -> None:
        file = drop / SIGNATURE_FILE
        statement = json.dumps(made.statement_of(file.read_bytes())).encode()
        file.write_bytes(made.bundle_over(made.changed(statement, path, value)))

    return apply


def _file(name: str, data: bytes | None) -> Callable[[Path], None]:
    def apply(drop: Path) -> None:
        if data is None:
            (drop / name).unlink()
        else:
            (drop / name).write_bytes(data)

    return apply


def _swap(drop: Path) -> None:
    signature = (drop / SIGNATURE_FILE).read_bytes()
    for name in ("slipway.yaml", "model.onnx"):
        (drop / name).write_bytes(b"of another version")
    library_signs(drop, made.private_key())
    assert (drop / SIGNATURE_FILE).read_bytes() != signature
    (drop / SIGNATURE_FILE).write_bytes(signature)


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (_signature("dsseEnvelope.payload", lambda text: made.flipped_base64(text, 5)), SigningCode.BAD_SIGNATURE),
        (_signature("dsseEnvelope.signatures.0.sig", lambda t: made.flipped_base64(t, 9)), SigningCode.BAD_SIGNATURE),
        (_signature("dsseEnvelope.signatures", lambda _: []), SigningCode.BAD_SIGNATURE),
        (_signature("dsseEnvelope.payloadType", lambda _: "text/plain"), SigningCode.BAD_SIGNATURE),
        (_signature("mediaType", lambda _: "application/json"), SigningCode.BAD_SIGNATURE),
        (_signature("verificationMaterial.publicKey.hint", lambda _: "0" * 64), SigningCode.UNKNOWN_KEY),
        (_signature("verificationMaterial.publicKey", lambda _: None), SigningCode.BAD_SIGNATURE),
        (_resigned("predicateType", "https://example.invalid/v1"), SigningCode.BAD_SIGNATURE),
        (_resigned("_type", "https://in-toto.io/Statement/v0.1"), SigningCode.BAD_SIGNATURE),
        (_resigned("subject.0.digest.sha256", "0" * 64), SigningCode.BAD_SIGNATURE),
        (_resigned("predicate.serialization.method", "tensors"), SigningCode.BAD_SIGNATURE),
        (_file("model.onnx", b"modem"), SigningCode.ALTERED_FILE),
        (_file("data/weights.bin", None), SigningCode.MISSING_FILE),
        (_file("data/more.bin", b""), SigningCode.UNSIGNED_FILE),
        (_file(SIGNATURE_FILE, b"{}"), SigningCode.BAD_SIGNATURE),
        (_swap, SigningCode.SIGNATURE_MISMATCH),
    ],
)
def test_what_the_library_refuses_is_refused_here(drop: Path, harm: Callable[[Path], None], code: SigningCode) -> None:
    private = made.private_key()
    library_signs(drop, private)
    assert library_verifies(drop, private)
    harm(drop)
    assert not library_verifies(drop, private)
    assert ours(drop, private) == code


def test_a_strangers_signature_is_refused_by_both(drop: Path) -> None:
    library_signs(drop, made.private_key(number=2))
    assert not library_verifies(drop, made.private_key())
    assert ours(drop, made.private_key()) == SigningCode.UNKNOWN_KEY
