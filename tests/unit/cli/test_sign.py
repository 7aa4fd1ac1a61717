"""`slipway keygen` and `slipway sign`: a signature that intake and the server take, made without a running system."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from cli.outcome import ExitCode
from cli.sign import PASSWORD
from shared.signing.verify import verify_drop
from tests.unit.cli.conftest import Slipway
from tests.unit.signing import made


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    folder = tmp_path / "drop"
    (folder / "data").mkdir(parents=True)
    for name in ("slipway.yaml", "model.onnx", "data/weights.bin"):
        (folder / name).write_text(name)
    return folder


def test_a_made_key_signs_a_folder_that_then_verifies(bare: Slipway, drop: Path, tmp_path: Path) -> None:
    made_key = bare("keygen", str(tmp_path / "release"), "--json").json
    signed = bare("sign", str(drop), "--key", made_key["private_key"], "--json").json
    public = Path(made_key["public_key"]).read_text()
    assert verify_drop((drop / "model.sig").read_bytes(), made.digests(drop), [public]) == made_key["fingerprint"]
    assert (signed["key"], signed["files"]) == (made_key["fingerprint"], made.digests(drop))


def test_the_private_key_is_its_owners_alone_and_no_key_is_overwritten(bare: Slipway, tmp_path: Path) -> None:
    key = tmp_path / "release"
    assert bare("keygen", str(key)).code == ExitCode.OK
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    again = bare("keygen", str(key))
    assert (again.code, "exists already" in again.err) == (ExitCode.USAGE, True)
    assert key.read_bytes() == before
    key.unlink()
    assert "release.pub exists already" in bare("keygen", str(key)).err
    assert not key.exists()


def test_signing_again_replaces_the_signature_and_leaves_hidden_files_out(
    bare: Slipway, drop: Path, tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_bytes(made.private_key())
    (drop / ".DS_Store").write_text("hidden, and not pushed")
    for content in ("first", "second"):
        (drop / "model.onnx").write_text(content)
        told = bare("sign", str(drop), "--key", str(tmp_path / "key.pem"))
        assert "3 files signed with the key" in told.out
    (drop / ".DS_Store").unlink()
    key = made.public_key(made.private_key())
    assert verify_drop((drop / "model.sig").read_bytes(), made.digests(drop), [key.pem]) == key.fingerprint
    assert sorted(path.name for path in drop.iterdir()) == ["data", "model.onnx", "model.sig", "slipway.yaml"]


def test_a_key_with_a_password_takes_it_from_the_environment(
    bare: Slipway, drop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = made.loaded(made.private_key())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open"))
    (tmp_path / "key.pem").write_bytes(pem)
    refused = bare("sign", str(drop), "--key", str(tmp_path / "key.pem"))
    assert (refused.code, "password" in refused.err) == (ExitCode.USAGE, True)
    monkeypatch.setenv(PASSWORD, "open")
    assert bare("sign", str(drop), "--key", str(tmp_path / "key.pem")).code == ExitCode.OK


@pytest.mark.parametrize(
    ("folder", "key", "said"),
    [
        ("drop", "no-such.pem", "no-such.pem cannot be read"),
        ("drop", "drop/slipway.yaml", "the private key cannot be read"),
        ("empty", "key.pem", "holds no slipway.yaml and no MLmodel"),
        ("no-such-folder", "key.pem", "holds no slipway.yaml and no MLmodel"),
    ],
)
def test_what_cannot_be_signed_is_one_sentence_and_leaves_nothing(
    bare: Slipway, drop: Path, tmp_path: Path, folder: str, key: str, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "key.pem").write_bytes(made.private_key())
    ran = bare("sign", str(tmp_path / folder), "--key", str(tmp_path / key))
    assert (ran.code, said in ran.err) == (ExitCode.USAGE, True)
    assert not (drop / "model.sig").exists()
