"""Signed drops: a good signature is kept, and each way to be none is refused for its own reason."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from shared.registry.policy import SigningPolicy
from shared.signing.bundle import MAX_SIGNATURE_BYTES
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.wire import Accepted, FileRole
from tests.unit.signing.made import digest, private_key, public_key, signed
from tests.unit.validation.forms import listed, manifest, outside_files, taken_bundle, taken_folder

OURS, THEIRS = private_key(number=1), private_key(number=2)
TRUSTED = SigningPolicy(required=True, trusted_keys=(public_key(OURS).pem,))
OPTIONAL = SigningPolicy(trusted_keys=TRUSTED.trusted_keys)

type Take = Callable[..., Accepted]


def signed_files(files: Mapping[str, bytes], private: bytes = OURS) -> dict[str, bytes]:
    return {**files, "model.sig": signed({name: digest(content) for name, content in files.items()}, private)}


def folder_files(**changes: bytes) -> dict[str, bytes]:
    return listed({**outside_files(), **changes}, validation="data/rows.npz")


@pytest.mark.parametrize("take", [taken_folder, taken_bundle])
@pytest.mark.parametrize("policy", [TRUSTED, OPTIONAL])
def test_a_good_signature_is_kept_with_the_key_that_made_it(tmp_path: Path, take: Take, policy: SigningPolicy) -> None:
    files = signed_files(folder_files())
    accepted = take(tmp_path, files, signing=policy)
    assert accepted.signed_by == public_key(OURS).fingerprint
    (signature,) = (file for file in accepted.files if file.role is FileRole.SIGNING)
    assert signature.name == "model.sig"
    place = tmp_path / "work" / signature.file if take is taken_bundle else tmp_path / f"downloaded-{len(files) - 1}"
    assert place.read_bytes() == files["model.sig"]


@pytest.mark.parametrize("take", [taken_folder, taken_bundle])
@pytest.mark.parametrize(
    ("harm", "code", "said"),
    [
        (lambda files: files, RefusalCode.UNSIGNED, "has no model.sig, and the model's policy wants signed drops"),
        (lambda files: signed_files(files, THEIRS), RefusalCode.UNKNOWN_KEY, "which is not trusted"),
        (
            lambda files: signed_files(files) | {"weights.bin": bytes(35) + b"!"},
            RefusalCode.ALTERED_FILE,
            "'weights.bin'",
        ),
        (lambda files: signed_files(files) | {"model.onnx": b"no model"}, RefusalCode.ALTERED_FILE, "'model.onnx'"),
        (
            lambda files: {**files, "model.sig": signed_files(folder_files(**{"notes.txt": b"2"}))["model.sig"]},
            RefusalCode.SIGNATURE_MISMATCH,
            "was made for other files",
        ),
        (lambda files: signed_files(files) | {"more.bin": b""}, RefusalCode.UNSIGNED_FILE, "'more.bin' is not covered"),
        (lambda files: {**files, "model.sig": b"{" * 10_000}, RefusalCode.BAD_SIGNATURE, ""),
        (lambda files: {**files, "model.sig": b""}, RefusalCode.BAD_SIGNATURE, ""),
        (lambda files: {**files, "model.sig": bytes(MAX_SIGNATURE_BYTES + 1)}, RefusalCode.TOO_LARGE, "'model.sig' is"),
    ],
    ids=["unsigned", "stranger", "flipped", "replaced", "swapped", "added", "nested", "empty", "huge"],
)
def test_a_signature_that_does_not_stand_for_the_drop_is_refused(
    tmp_path: Path, take: Take, harm: Callable[[dict[str, bytes]], dict[str, bytes]], code: RefusalCode, said: str
) -> None:
    with pytest.raises(DropRefusedError) as caught:
        take(tmp_path, harm(folder_files()), signing=TRUSTED)
    assert caught.value.code is code
    assert said in str(caught.value)


def test_a_file_that_was_signed_and_is_gone_is_named(tmp_path: Path) -> None:
    files = signed_files({**outside_files(), "more.txt": b"", "slipway.yaml": manifest(validation="data/rows.npz")})
    del files["more.txt"]
    with pytest.raises(DropRefusedError) as caught:
        taken_bundle(tmp_path, files, signing=TRUSTED)
    assert caught.value.code is RefusalCode.MISSING_FILE
    assert "'more.txt' was signed and is not there" in str(caught.value)


@pytest.mark.parametrize("take", [taken_folder, taken_bundle])
def test_a_drop_may_go_unsigned_where_the_policy_lets_it(tmp_path: Path, take: Take) -> None:
    assert take(tmp_path, folder_files(), signing=OPTIONAL).signed_by == ""
    with pytest.raises(DropRefusedError) as caught:
        take(tmp_path, signed_files(folder_files(), THEIRS), signing=OPTIONAL)
    assert caught.value.code is RefusalCode.UNKNOWN_KEY
