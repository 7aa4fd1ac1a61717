"""What the server makes of signatures when it loads: whose they are, and what they are about."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from shared.routing.plan import Role, Route, Signing
from tests.serving import models
from tests.serving.conftest import Start, eventually
from tests.serving.fakes import MemoryStorage
from tests.unit.signing import made

pytestmark = pytest.mark.anyio

OLD, MODEL = models.scaler(1.0), models.scaler(2.0)
TABLE = models.numbers(1.0, 2.0, 3.0)
LOOKUP = models.lookup(("data/table.bin", 0, len(TABLE)))
PRIVATE, STRANGE = made.private_key(), made.private_key(number=2)
KEY, STRANGER = made.public_key(PRIVATE), made.public_key(STRANGE)


def _signed(*files: tuple[str, bytes], private: bytes = PRIVATE) -> bytes:
    """A signature over a drop with these files and others that the server never fetches."""
    others = {"slipway.yaml": made.digest(b"task"), "validation.npz": made.digest(b"rows")}
    return made.signed(others | {name: made.digest(data) for name, data in files}, private)


RIGHT = _signed(("model.onnx", MODEL))


def _route(
    signing: bytes | None = RIGHT, *, keys: tuple[str, ...] = (KEY.pem,), version: int = 2, **more: Any
) -> Route:
    held = None if signing is None else Signing(digest=made.digest(signing), trusted_keys=keys)
    return models.route(version, more.pop("data", MODEL), signing=held, **more)


async def _loaded(start: Start, storage: MemoryStorage, route: Route) -> str:
    """Why a candidate's route beside a loaded stable version does not load; empty where it does."""
    (stable, _) = models.canary((1, OLD), (2, MODEL), 5_000)
    candidate = route.model_copy(update={"role": Role.CANDIDATE, "weight_bp": 5_000})
    storage.blobs.clear()
    storage.publish(models.plan(1, models.route(1, OLD)))
    # A cache of its own: each call begins with generation 1 anew.
    with TemporaryDirectory() as cache:
        async with start(cache=Path(cache)) as running:
            await running.reload()
            storage.publish(models.plan(2, stable, candidate))
            state = (await running.reload())["endpoints"]["churn"]
            reason: str = state["failed"].get("2", "")
            assert state["loaded"] == ([1] if reason else [1, 2])
            assert (await running.predict([[1, 1]], model_version=1)).json()["predictions"] == [[1.0, 1.0]]
    assert storage.windows()[-1].failed == ({2: reason} if reason else {})
    return reason


async def test_a_version_that_a_trusted_key_signed_is_loaded_and_the_log_names_the_key(
    start: Start, storage: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    storage.put(OLD, MODEL, RIGHT)
    assert await _loaded(start, storage, _route()) == ""
    assert f"signed by {KEY.fingerprint}" in caplog.text


async def test_a_flipped_bit_a_swapped_signature_and_an_unknown_key_are_three_refusals(
    start: Start, storage: MemoryStorage
) -> None:
    swapped = _signed(("model.onnx", OLD))
    storage.put(OLD, RIGHT, swapped)
    storage.artifacts[models.digest(MODEL)] = MODEL[:-1] + bytes([MODEL[-1] ^ 1])
    flipped = await _loaded(start, storage, _route())
    storage.put(MODEL)
    mismatch = await _loaded(start, storage, _route(swapped))
    unknown = await _loaded(start, storage, _route(keys=(STRANGER.pem,)))
    assert [reason.partition(": ")[0] for reason in (flipped, mismatch, unknown)] == [
        "altered",
        "signature_mismatch",
        "unknown_key",
    ]
    assert models.digest(MODEL) in flipped
    assert models.digest(OLD) in mismatch
    assert KEY.hint in unknown


@pytest.mark.parametrize("at", [0, 300, -1])
async def test_a_signature_file_altered_in_storage_is_refused_by_its_digest(
    start: Start, storage: MemoryStorage, at: int
) -> None:
    storage.put(OLD, MODEL)
    altered = bytearray(RIGHT)
    altered[at] ^= 1
    storage.artifacts[models.digest(RIGHT)] = bytes(altered)
    reason = await _loaded(start, storage, _route())
    assert reason.startswith("altered: what storage has as the signature is ")


@pytest.mark.parametrize("signing", [b"", b"{}", made.changed(RIGHT, "dsseEnvelope.signatures.0.sig", "MAAA")])
async def test_a_signature_that_does_not_verify_is_refused(
    start: Start, storage: MemoryStorage, signing: bytes
) -> None:
    storage.put(OLD, MODEL, signing)
    assert (await _loaded(start, storage, _route(signing))).startswith("bad_signature: ")


async def test_what_a_signature_does_not_vouch_for_is_not_even_fetched(start: Start, storage: MemoryStorage) -> None:
    storage.put(OLD, MODEL, RIGHT)
    storage.publish(models.plan(1, _route(keys=(STRANGER.pem,))))
    async with start() as running:
        await running.reload()
    assert storage.artifact_reads == 1


async def test_a_signature_covers_the_external_data_too(start: Start, storage: MemoryStorage) -> None:
    other = models.numbers(1.0, 2.0, 4.0)
    whole = _signed(("model.onnx", LOOKUP), ("data/table.bin", TABLE))
    partly = _signed(("model.onnx", LOOKUP))
    storage.put(OLD, LOOKUP, TABLE, other, whole, partly)
    good = _route(whole, data=LOOKUP, external={"data/table.bin": TABLE})
    assert await _loaded(start, storage, good) == ""
    swapped = await _loaded(start, storage, _route(whole, data=LOOKUP, external={"data/table.bin": other}))
    assert swapped.startswith("signature_mismatch: ")
    assert all(digest in swapped for digest in (models.digest(TABLE), models.digest(other)))
    uncovered = await _loaded(start, storage, _route(partly, data=LOOKUP, external={"data/table.bin": TABLE}))
    assert uncovered.startswith("signature_mismatch: the signature verifies and does not cover 'data/table.bin'")


async def test_the_model_is_compared_under_its_name_in_the_drop(start: Start, storage: MemoryStorage) -> None:
    signing = _signed(("net.onnx", MODEL))
    storage.put(OLD, MODEL, signing)
    assert (await _loaded(start, storage, _route(signing))).startswith("signature_mismatch: ")
    named = _route(signing).model_copy(update={"model_file": "net.onnx"})
    assert await _loaded(start, storage, named) == ""


async def test_a_key_that_is_no_longer_trusted_keeps_the_version_out_and_the_last_one_goes_on(
    start: Start, storage: MemoryStorage
) -> None:
    storage.put(OLD, MODEL, RIGHT)
    storage.publish(models.plan(1, _route()))
    async with start() as running:
        assert (await running.reload())["endpoints"]["churn"]["loaded"] == [2]
        storage.publish(models.plan(2, _route(keys=(STRANGER.pem,))))
        state = (await running.reload())["endpoints"]["churn"]
        assert state["failed"]["2"].startswith("unknown_key: ")
        assert state["generation"] == 1
        assert (await running.predict([[1, 1]])).json()["predictions"] == [[2.0, 2.0]]


async def test_a_server_with_keys_of_its_own_takes_nothing_unsigned(start: Start, storage: MemoryStorage) -> None:
    storage.put(OLD, MODEL, RIGHT)
    storage.publish(models.plan(1, *models.canary((1, OLD), (2, MODEL), 5_000)))
    async with start(trusted_keys=(KEY.pem,)) as running:
        failed = (await running.reload())["endpoints"]["churn"]["failed"]
        assert sorted(failed) == ["1", "2"]
        assert all(reason.startswith("unsigned: ") and "SLIPWAY_TRUSTED_KEYS" in reason for reason in failed.values())
        storage.publish(models.plan(2, _route()))
        assert (await running.reload())["endpoints"]["churn"]["loaded"] == [2]


async def test_a_servers_own_keys_are_the_only_ones_that_it_trusts(start: Start, storage: MemoryStorage) -> None:
    strange = _signed(("model.onnx", MODEL), private=STRANGE)
    storage.put(MODEL, RIGHT, strange)
    storage.publish(models.plan(1, _route(strange, keys=(STRANGER.pem,))))
    async with start(trusted_keys=(KEY.pem,)) as running:
        failed = (await running.reload())["endpoints"]["churn"]["failed"]
        assert failed["2"].startswith("unknown_key: ")
        storage.publish(models.plan(2, _route(keys=(STRANGER.pem,))))
        assert (await running.reload())["endpoints"]["churn"]["loaded"] == [2]


async def test_a_restart_with_storage_down_verifies_from_the_cache(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    storage.put(MODEL, RIGHT)
    storage.publish(models.plan(1, _route()))
    async with start(trusted_keys=(KEY.pem,)) as running:
        await running.reload()
        await eventually((tmp_path / "cache" / "plans" / "churn.json").exists)
    storage.down = True
    async with start(trusted_keys=(KEY.pem,)) as running:
        await eventually(lambda: running.server.not_ready() == "")
        assert (await running.predict([[1, 1]])).json()["predictions"] == [[2.0, 2.0]]
        storage.down = False
