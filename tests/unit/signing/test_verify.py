"""What verifies, and which refusal everything else is."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from shared.core.errors import InvalidInputError
from shared.signing.bundle import MAX_SIGNATURE_BYTES
from shared.signing.errors import SigningCode, SigningError
from shared.signing.keys import TrustedKey, split_pems
from shared.signing.sign import new_key, read_private_key, sign_files
from shared.signing.verify import read_signed, verify_drop
from tests.unit.signing import made

FILES = {name: made.digest(name.encode()) for name in ("data/w.bin", "model.onnx", "slipway.yaml", "validation.npz")}
OTHER = {name: made.digest(b"other " + name.encode()) for name in FILES}
SIGNED = made.signed(FILES)
KEY = made.public_key(made.private_key())
STRANGER = made.public_key(made.private_key(number=2))


def refusal(signing: bytes, files: dict[str, str] = FILES, keys: tuple[str, ...] = (KEY.pem,)) -> SigningError:
    with pytest.raises(SigningError) as caught:
        verify_drop(signing, files, keys)
    assert len(str(caught.value)) <= 500
    return caught.value


@pytest.mark.parametrize("curve", made.CURVES)
def test_the_key_that_signed_is_found_among_the_trusted_ones(curve: str) -> None:
    private = made.private_key(curve)
    public = made.public_key(private)
    keys = [STRANGER.pem, public.pem, KEY.pem]
    assert verify_drop(made.signed(FILES, private), FILES, keys) == public.fingerprint


def test_the_fingerprint_is_the_digest_of_the_keys_der_form() -> None:
    der = made.loaded(made.private_key()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert verify_drop(SIGNED, FILES, [KEY.pem]) == made.digest(der)


def test_a_signature_without_a_hint_is_tried_with_every_trusted_key() -> None:
    unnamed = made.changed(SIGNED, "verificationMaterial.publicKey.hint", ...)
    assert verify_drop(unnamed, FILES, [STRANGER.pem, KEY.pem]) == KEY.fingerprint
    assert refusal(unnamed, keys=(STRANGER.pem,)).code is SigningCode.UNKNOWN_KEY


def test_an_older_signature_that_brings_its_key_along_is_not_believed_for_it() -> None:
    stranger = made.signed(FILES, made.private_key(number=2))
    material = {"rawBytes": STRANGER.pem, "keyDetails": "PKIX_ECDSA_P256_SHA_256", "hint": None}
    brought = made.changed(stranger, "verificationMaterial.publicKey", material)
    assert refusal(brought).code is SigningCode.UNKNOWN_KEY


@pytest.mark.parametrize("keys", [(), (STRANGER.pem,), ("no key at all",)])
def test_a_key_that_is_not_trusted_is_unknown(keys: tuple[str, ...]) -> None:
    error = refusal(SIGNED, keys=keys)
    assert error.code is SigningCode.UNKNOWN_KEY
    assert KEY.hint in str(error)


def test_a_trusted_key_that_cannot_be_used_is_named_and_hinders_no_other() -> None:
    assert verify_drop(SIGNED, FILES, ["no key", KEY.pem]) == KEY.fingerprint
    assert "trusted key 1: the public key cannot be read" in str(refusal(SIGNED, keys=("no key", STRANGER.pem)))


@given(st.integers(0, 2_000))
def test_a_flipped_bit_of_the_signature_or_of_what_it_is_over_never_verifies(at: int) -> None:
    envelope = json.loads(SIGNED)["dsseEnvelope"]
    flips = {
        "dsseEnvelope.payload": envelope["payload"],
        "dsseEnvelope.signatures.0.sig": envelope["signatures"][0]["sig"],
    }
    for path, text in flips.items():
        altered = made.changed(SIGNED, path, made.flipped_base64(text, at))
        assert refusal(altered).code is SigningCode.BAD_SIGNATURE


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_anywhere_in_the_file_verifies_only_where_it_changes_nothing_signed(at: int, bit: int) -> None:
    altered = bytearray(SIGNED)
    altered[at % len(altered)] ^= 1 << bit
    try:
        read = read_signed(bytes(altered), [KEY.pem])
    except SigningError as error:
        assert error.code in {SigningCode.BAD_SIGNATURE, SigningCode.UNKNOWN_KEY}  # noqa: PT017 - either may come
    else:
        assert (read.files, read.fingerprint) == (FILES, KEY.fingerprint)


@given(st.binary(max_size=400))
def test_bytes_that_are_no_signature_are_refused_as_such(data: bytes) -> None:
    assert refusal(data).code is SigningCode.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no JSON object"),
        (b"[]", "no JSON object"),
        (b"\xff", "no JSON object"),
        (SIGNED[:-1], "no JSON object"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[" * 100_000, "nests more than 16 levels"),
        (b'{"a": ' * 100_000, "nests more than 16 levels"),
        (b'{"a": "]]]]", "b": ' + b"[" * 17 + b"]" * 17 + b"}", "nests more than 16 levels"),
        (b"1" * 5_000, "no JSON object"),
        (b'{"a": "' + b'\\"' * 500_000, "no JSON object"),
        (b'{"a": "' + b"\\" * 1_000_001, "no JSON object"),
        (b" " * (MAX_SIGNATURE_BYTES + 1), "at most 1048576 are read"),
        (SIGNED.replace(b'"mediaType"', b'"mediaType":"x","mediaType"'), "twice in one object"),
        (made.changed(SIGNED, "mediaType", "application/json"), "mediaType"),
        (made.changed(SIGNED, "wish", 1), "wish"),
        (made.changed(SIGNED, "dsseEnvelope.payloadType", "text/plain"), "payloadType"),
        (made.changed(SIGNED, "dsseEnvelope.payload", "!!!!"), "not base64"),
        (made.changed(SIGNED, "dsseEnvelope.payload", "ä"), "not base64"),
        (made.changed(SIGNED, "dsseEnvelope.signatures", []), "signatures"),
        (made.changed(SIGNED, "dsseEnvelope.signatures.0.sig", "\ud800"), "sig"),
        (made.changed(SIGNED, "verificationMaterial", {"certificate": {"rawBytes": ""}}), "not made with a key"),
        (made.changed(SIGNED, "verificationMaterial.publicKey.hint", 7), "hint"),
    ],
)
def test_a_malformed_file_is_refused_with_its_reason(data: bytes, said: str) -> None:
    error = refusal(data)
    assert error.code is SigningCode.BAD_SIGNATURE
    assert said in str(error)


def _set(path: str, value: Any) -> bytes:
    return made.changed(json.dumps(made.statement_of(SIGNED)).encode(), path, value)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"{}", "not a 'https://model_signing/signature/v1.0'"),
        (b"no json", "no JSON object"),
        (_set("predicateType", "https://model_signing/Digests/v0.1"), "model-signing 1.0 or later"),
        (_set("_type", "https://in-toto.io/Statement/v0.1"), "_type"),
        (_set("predicate.serialization.method", "shards"), "hashes by 'shards' with 'sha256'"),
        (_set("predicate.serialization.hash_type", "blake3"), "hashes by 'files' with 'blake3'"),
        (_set("predicate.resources", []), "resources"),
        (_set("predicate.resources.0.digest", "0" * 63), "digest"),
        (_set("predicate.resources.0.digest", "0" * 64), "contradicts itself"),
        (_set("predicate.resources.1.name", "data/w.bin"), "names a file twice"),
        (_set("predicate.resources.0.algorithm", "md5"), "algorithm"),
        (_set("subject", []), "subject"),
    ],
)
def test_a_statement_of_another_form_is_refused_although_its_signature_verifies(payload: bytes, said: str) -> None:
    error = refusal(made.bundle_over(payload))
    assert error.code is SigningCode.BAD_SIGNATURE
    assert said in str(error)


def test_further_keys_of_a_statement_are_passed_over_as_its_form_asks() -> None:
    statement = made.statement_of(SIGNED)
    statement["predicate"]["card"] = {"license": "none"}
    assert verify_drop(made.resigned(statement), FILES, [KEY.pem]) == KEY.fingerprint


@pytest.mark.parametrize("name", ["model.onnx", "data/w.bin", "slipway.yaml"])
def test_one_file_that_differs_was_altered_and_is_named_with_both_digests(name: str) -> None:
    error = refusal(SIGNED, FILES | {name: OTHER[name]})
    assert error.code is SigningCode.ALTERED_FILE
    assert all(part in str(error) for part in (repr(name), FILES[name], OTHER[name]))


@pytest.mark.parametrize(
    "files",
    [
        OTHER,
        FILES | {name: OTHER[name] for name in ("slipway.yaml", "model.onnx")},
        {name: digest for name, digest in OTHER.items() if name != "data/w.bin"},
        {"MLmodel": OTHER["slipway.yaml"], "model.onnx": OTHER["model.onnx"]},
    ],
    ids=["all", "manifest and model", "fewer", "another form"],
)
def test_a_signature_of_another_drop_is_a_mismatch(files: dict[str, str]) -> None:
    error = refusal(SIGNED, files)
    assert error.code is SigningCode.SIGNATURE_MISMATCH
    assert "made for other files" in str(error)


def test_the_manifest_of_an_mlflow_folder_tells_a_swapped_signature_from_an_altered_file() -> None:
    files = {"MLmodel": OTHER["slipway.yaml"], "model.onnx": OTHER["model.onnx"], "python_env.yaml": "0" * 64}
    signing = made.signed(files)
    assert refusal(signing, files | {"model.onnx": "1" * 64}).code is SigningCode.ALTERED_FILE
    swapped = files | {"MLmodel": "1" * 64, "model.onnx": "2" * 64}
    assert refusal(signing, swapped).code is SigningCode.SIGNATURE_MISMATCH


def test_files_that_came_or_went_after_the_signing_are_named() -> None:
    added = refusal(SIGNED, FILES | {"backdoor.bin": "0" * 64})
    assert (added.code, "'backdoor.bin'" in str(added)) == (SigningCode.UNSIGNED_FILE, True)
    removed = refusal(SIGNED, {name: value for name, value in FILES.items() if name != "data/w.bin"})
    assert (removed.code, "'data/w.bin'" in str(removed)) == (SigningCode.MISSING_FILE, True)


def test_a_path_that_the_signer_ignored_is_unsigned_all_the_same() -> None:
    statement = made.statement_of(SIGNED)
    statement["predicate"]["serialization"]["ignore_paths"] = ["model.onnx"]
    statement["predicate"]["resources"] = [
        resource for resource in statement["predicate"]["resources"] if resource["name"] != "model.onnx"
    ]
    assert refusal(made.resigned(made.rooted(statement))).code is SigningCode.UNSIGNED_FILE


def test_a_signature_over_a_folder_that_held_an_older_signature_says_to_leave_it_out() -> None:
    error = refusal(made.signed(FILES | {"model.sig": "0" * 64}))
    assert (error.code, "ignore model.sig" in str(error)) == (SigningCode.MISSING_FILE, True)


def test_what_was_signed_is_read_without_knowing_the_files() -> None:
    read = read_signed(SIGNED, [KEY.pem])
    assert (read.files, read.fingerprint) == (FILES, KEY.fingerprint)


def _pem(key: Any) -> str:
    text: str = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return text


@pytest.mark.parametrize(
    ("pem", "said"),
    [
        ("", "cannot be read"),
        (KEY.pem.replace("M", "N", 1), "cannot be read"),
        (_pem(ed25519.Ed25519PrivateKey.generate()), "Ed25519PublicKey"),
        (_pem(ec.generate_private_key(ec.SECP256K1())), "secp256k1"),
        (made.private_key().decode(), "cannot be read"),
    ],
)
def test_a_key_that_cannot_serve_says_which_would(pem: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match="P-256, P-384 and P-521") as caught:
        TrustedKey.from_pem(pem)
    assert said in str(caught.value)


def test_a_file_of_several_keys_is_split() -> None:
    text = f"# keys of the release team\n{KEY.pem}\n{STRANGER.pem}# end\n"
    assert [TrustedKey.from_pem(pem) for pem in split_pems(text)] == [KEY, STRANGER]
    assert split_pems("nothing here") == []


def test_a_new_key_signs() -> None:
    private, public = new_key()
    signing = sign_files(FILES, read_private_key(private), name="drop")
    assert verify_drop(signing, FILES, [public.decode()]) == made.public_key(private).fingerprint


@pytest.mark.parametrize(("private", "password"), [(b"no key", None), (made.private_key(), b"needless")])
def test_a_private_key_that_cannot_be_used_is_an_error(private: bytes, password: bytes | None) -> None:
    with pytest.raises(InvalidInputError, match="the private key"):
        read_private_key(private, password=password)
