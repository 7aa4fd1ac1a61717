"""Who may name the version that answers: anybody, or the bearer of a signed override."""

import json
import logging
import time
from pathlib import Path

import pytest
from aks_serving.api import Api
from aks_serving.counts import VersionTally
from aks_serving.model import Model
from aks_serving.override import OverrideKeys, Pin, Pinning, pinned_version

from shared.core.errors import InvalidInputError
from shared.core.ids import EndpointName
from shared.signing.override import HEADER, Override, OverrideRefusedError, sign_override
from shared.telemetry.window import MAX_NAMES, OTHERS, added_names
from tests.serving import models
from tests.serving.handled import Asked, HandServer, turn
from tests.serving.processes import Account, Launch
from tests.support import waiting

KEYS = (b"k" * 32, b"old" * 16)
NOW_S = 1_764_000_000.0


def header(*, endpoint: str = "churn", version: int = 7, lives_s: int = 60, key: bytes = KEYS[0]) -> dict[bytes, bytes]:
    override = Override(endpoint=EndpointName(endpoint), version=version, expires_s=int(NOW_S) + lives_s, by="ann")
    return {HEADER.encode(): sign_override(override, [key]).encode()}


def pinned(
    headers: dict[bytes, bytes],
    asked: int | None = None,
    *,
    keys: tuple[bytes, ...] = KEYS,
    pinning: Pinning = Pinning.OPEN,
) -> int | None:
    found = pinned_version(headers, asked, endpoint="churn", keys=keys, pinning=pinning, now_s=NOW_S)
    return None if found is None else found.version


def test_who_names_nothing_gets_what_the_plan_decides() -> None:
    for pinning in Pinning:
        assert pinned({}, pinning=pinning) is None
        assert pinned({}, pinning=pinning, keys=()) is None


def test_where_pinning_is_open_anybody_names_a_version_also_beside_keys() -> None:
    assert pinned({}, 3) == 3
    assert pinned({}, 3, keys=()) == 3


def test_where_pinning_is_signed_only_an_override_names_one() -> None:
    with pytest.raises(OverrideRefusedError, match="version 3 is named, and on this server only a signed override may"):
        pinned({}, 3, pinning=Pinning.SIGNED)
    assert pinned(header(), pinning=Pinning.SIGNED) == 7
    assert pinned(header(), 7, pinning=Pinning.SIGNED) == 7


def test_an_override_signed_with_a_key_that_is_being_replaced_holds_still() -> None:
    assert pinned(header(key=KEYS[1])) == 7


def test_keys_follow_their_file_and_stay_where_it_cannot_be_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text(KEYS[0].hex())
    keys = OverrideKeys(path)
    path.write_text(f"{KEYS[1].hex()}\n{KEYS[0].hex()}")
    keys.reload()
    assert tuple(keys) == (KEYS[1], KEYS[0])
    path.write_text(KEYS[1].hex())
    keys.reload()
    assert tuple(keys) == KEYS[1:]
    with caplog.at_level(logging.WARNING):
        for spoil in (lambda: path.write_text("no key"), path.unlink):
            spoil()
            for _ in range(3):
                keys.reload()
            assert tuple(keys) == KEYS[1:]
    assert ["stay as they were" in record.message for record in caplog.records] == [True, True]
    path.write_text(KEYS[0].hex())
    keys.reload()
    assert tuple(keys) == KEYS[:1]


def test_without_a_file_there_are_no_keys() -> None:
    keys = OverrideKeys()
    keys.reload()
    assert tuple(keys) == ()


@pytest.mark.parametrize("pinning", Pinning)
def test_an_override_that_does_not_hold_is_refused_and_never_passed_over(pinning: Pinning) -> None:
    cases = [
        (header(key=b"x" * 32), KEYS, "not signed by a key that this server knows"),
        (header(lives_s=0), KEYS, "expired 0 s ago"),
        (header(lives_s=8 * 86_400), KEYS, "at most 604800 are taken"),
        (header(endpoint="fraud"), KEYS, "for endpoint fraud, and the request for churn"),
        (header(), (), "SLIPWAY_OVERRIDE_KEYS"),
        ({HEADER.encode(): b""}, KEYS, "has not the form"),
        ({HEADER.encode(): b"\xff\xfe"}, KEYS, "has not the form"),
        ({HEADER.encode(): b", ".join(header()[HEADER.encode()] for _ in range(2))}, KEYS, "has not the form"),
    ]
    for headers, keys, reason in cases:
        with pytest.raises(OverrideRefusedError, match=reason):
            pinned(headers, keys=keys, pinning=pinning)


def test_an_override_and_a_body_that_name_two_versions_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="names version 3, and its override version 7"):
        pinned(header(), 3)


def test_a_pin_names_who_signed_it_and_nobody_where_nobody_did() -> None:
    found = pinned_version(header(), None, endpoint="churn", keys=KEYS, pinning=Pinning.OPEN, now_s=NOW_S)
    assert found == Pin(7, "ann")
    asked = pinned_version({}, 3, endpoint="churn", keys=KEYS, pinning=Pinning.OPEN, now_s=NOW_S)
    assert asked == Pin(3, "")


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/predict", "/v2/models/churn/infer"])
async def test_a_warm_candidate_without_traffic_answers_the_bearer_of_an_override_who_is_counted_by_name(
    path: str,
) -> None:
    stable, candidate = models.table(), models.picky(limit=4)
    plan = models.plan(1, *models.canary((1, stable), (7, candidate), 0))
    versions = {1: Model(version=1, digest="", data=stable), 7: Model(version=7, digest="", data=candidate)}
    server = HandServer(plan, versions, inline=True)
    server.api = Api(server, override_keys=KEYS, pinning=Pinning.SIGNED)

    def asked(by: str, version: int = 7, feature: int = 1) -> Asked:
        tensor = {"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [feature]}
        body = {"features": [[feature]]} if path == "/predict" else {"inputs": [tensor]}
        override = Override(endpoint=EndpointName("churn"), version=version, expires_s=int(time.time()) + 60, by=by)
        signed = {HEADER.encode(): sign_override(override, KEYS).encode()} if by else {}
        return Asked(path, json.dumps(body).encode(), signed)

    requests = [asked("ann"), asked("ann"), asked("ci", feature=9), asked("ann", version=8), asked("")]
    server.ask(*requests)
    while server.engine.waiting:  # halves of the batch that fails
        await turn()
    assert [one.status for one in requests] == [200, 200, 500, 404, 200]
    assert requests[0].told[b"x-slipway-version"] == b"7"
    assert requests[4].told[b"x-slipway-version"] == b"1"
    found = server.serving.tally.of(7).counts()
    assert (found.overrides, found.requests, found.pinned, found.pinned_errors) == ({"ann": 2, "ci": 1}, 0, 3, 1)
    assert set(server.serving.tally.versions) == {1, 7}
    assert server.serving.tally.of(1).counts().overrides == {}
    server.close()


def test_however_many_sign_overrides_a_window_names_few_of_them_and_counts_all() -> None:
    tallies = [VersionTally() for _ in range(3)]
    names = [f"signer {n}" for n in range(200)] * 2
    for at, name in enumerate(names):
        tallies[at % 2].overridden(name)
        tallies[2].overridden(name)
    one, other, both = (tally.counts().overrides for tally in tallies)
    assert len(one) == len(both) == MAX_NAMES
    assert sum(both.values()) == 400
    assert both[OTHERS] == 2 * (200 - (MAX_NAMES - 1))
    # Two servers' windows add up to that of one that was asked all.
    assert added_names([one, other]) == both


def test_a_server_goes_by_the_keys_that_its_file_has_now(account: Account, launch: Launch, tmp_path: Path) -> None:
    model = models.scaler(1.0)
    account.put(model)
    account.publish(models.plan(1, models.route(7, model)))
    path = tmp_path / "keys"
    path.write_text(KEYS[0].hex())
    server = launch(account.connection, SLIPWAY_OVERRIDE_KEYS=str(path), SLIPWAY_PINNING="signed")
    waiting.eventually(server.ready, what="the server is ready")

    def status(key: bytes) -> int:
        override = Override(endpoint=EndpointName("churn"), version=7, expires_s=int(time.time()) + 60, by="ann")
        headers = {HEADER: sign_override(override, [key])}
        return server.http.post("/predict", json={"features": [[1, 1]]}, headers=headers).status_code

    assert [status(key) for key in KEYS] == [200, 403]
    path.write_text(KEYS[1].hex())
    waiting.eventually(lambda: [status(key) for key in KEYS] == [403, 200], what="the keys are read again")
    assert server.stop() == 0
