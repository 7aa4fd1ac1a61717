"""`slipway explain`: what it asks, what a person sees of the answer, and what its exit code says."""

import copy
from typing import Any

import pytest

from cli.outcome import ExitCode
from shared.lineage.documents import Lineage
from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway

ID = "m.2.4.ca.k3qx7m2p.6740a1f2.1f"
DECISION = {
    "kind": "stage_started",
    "at": "2026-01-03T00:00:00Z",
    "reason": "1 of 1 pods that report have version 2 ready",
    "verdicts": [{"check": "p99_ms", "outcome": "pass", "sentence": "the candidate's p99 is 5.0 ms"}],
    "stream": "endpoint:m",
    "seq": 9,
    "hash": "0" * 64,
}
LINEAGE: dict[str, Any] = {
    "prediction_id": ID,
    "prediction": {
        "endpoint": "m",
        "version": 2,
        "generation": 4,
        "role": "candidate",
        "reason": "assigned",
        "pod": "k3qx7m2p",
        "at": "2026-01-03T00:00:05Z",
        "count": 31,
    },
    "version": {
        "model": "m",
        "version": 2,
        "state": "validated",
        "altered": "",
        "drop": "m/2.onnx",
        "digest": "1" * 64,
        "artifact_digest": "2" * 64,
        "artifact_size_bytes": 5,
        "model_file": "model.onnx",
        "external": [{"name": "weights.bin", "digest": "3" * 64, "size_bytes": 7}],
        "registered_at": "2026-01-02T00:00:00Z",
        "signed_by": "4" * 64,
        "signature_digest": "5" * 64,
        "manifest": {"task": "classification", "author": "ann\x1b[31m", "git_commit": "abc123"},
        "data": {
            "training_data_version": "march",
            "validation_digest": "6" * 64,
            "reference_digest": None,
            "golden_digest": "7" * 64,
        },
        "validation": {
            "outcome": "pass",
            "decided_at": "2026-01-02T00:01:00Z",
            "metrics": {"accuracy": 0.9},
            "policy_version": 1,
            "report": "/api/models/m/versions/2/report",
        },
        "approvals": [{"by": "bob", "reason": "fit", "at": "2026-01-02T00:02:00Z", "command_id": "c"}],
    },
    "generation": {
        "generation": 4,
        "published_at": "2026-01-03T00:00:00Z",
        "superseded_at": None,
        "routes": [
            {"version": 1, "role": "stable", "weight_bp": 9_000, "mirror_bp": 0, "artifact_digest": "8" * 64},
            {"version": 2, "role": "candidate", "weight_bp": 1_000, "mirror_bp": 0, "artifact_digest": "2" * 64},
        ],
        "rollout": {
            "rollout_id": "rollout-000002-ab",
            "version": 2,
            "stable": 1,
            "strategy": "canary",
            "stage": 0,
            "stages": 2,
            "weight_bp": 1_000,
            "policy_version": 1,
            "forced": False,
            "requested_by": "policy",
            "started_at": "2026-01-02T23:59:00Z",
            "state": "progressing",
        },
        "decision": DECISION,
    },
    "promotion": None,
    "aliases": ["challenger"],
    "audit": {
        "verified": True,
        "problems": [],
        "references": [
            {"stream": "version:m:2", "seq": 3, "kind": "version_approved", "at": "2026-01-02T00:02:00Z"},
        ],
    },
}


def answered(api: FakeApi, value: dict[str, Any]) -> None:
    # What the API cannot answer is no test of what is made of its answers.
    Lineage.model_validate(value)
    api.answers[f"GET /api/predictions/{ID}"] = (200, value)


def test_a_prediction_is_asked_for_by_its_id_and_given_whole_as_json(slipway: Slipway, api: FakeApi) -> None:
    answered(api, LINEAGE)
    ran = slipway("explain", ID, "--json")
    assert (ran.code, ran.json) == (ExitCode.OK, LINEAGE)
    assert [(asked.method, asked.key) for asked in api.asked] == [("GET", "secret")]


@pytest.mark.parametrize(
    "said",
    [
        "version 2 of m, candidate: the plan gave it the request's subject",
        "2026-01-03 00:00:05, by the process k3qx7m2p",
        "m/2.onnx, registered 2026-01-02 00:00:00",
        f"model.onnx, sha256 {'2' * 64}",
        f"weights.bin, sha256 {'3' * 64}",
        "march (a claim)",
        f"sha256 {'6' * 64}",
        "4" * 64,
        "pass: slipway report m 2",
        "bob, 2026-01-02 00:02:00: fit",
        "generation 4, from 2026-01-03 00:00:00",
        "version 2, candidate, 10 %",
        "rollout-000002-ab of version 2, canary, stage 1 of 2, asked for by policy, under policy 1; now progressing",
        "stage_started, 2026-01-03 00:00:00: 1 of 1 pods that report have version 2 ready",
        "p99_ms pass: the candidate's p99 is 5.0 ms",
        "challenger",
        "the chains verify",
        "version:m:2 event 3, 2026-01-02 00:02:00: version_approved",
    ],
)
def test_a_person_is_shown(slipway: Slipway, api: FakeApi, said: str) -> None:
    answered(api, LINEAGE)
    assert said in slipway("explain", ID).out


def test_what_a_drop_claims_reaches_no_terminal_with_its_control_characters(slipway: Slipway, api: FakeApi) -> None:
    answered(api, LINEAGE)
    shown = slipway("explain", ID).out
    assert "\x1b" not in shown
    assert r"author ann\x1b[31m, git commit abc123" in shown


def test_a_broken_audit_is_shown_and_is_exit_code_1(slipway: Slipway, api: FakeApi) -> None:
    value = copy.deepcopy(LINEAGE)
    value["audit"] |= {"verified": False, "problems": [{"stream": "endpoint:m", "seq": 9, "problem": "edited"}]}
    value["promotion"] = DECISION | {"kind": "rollout_promoted", "seq": 5}
    answered(api, value)
    ran = slipway("explain", ID)
    assert ran.code == ExitCode.FAILED
    assert "THE CHAINS DO NOT VERIFY" in ran.out
    assert "endpoint:m event 9: edited" in ran.out
    assert "rollout_promoted" in ran.out


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (400, "invalid_input", ExitCode.FAILED),
        (404, "not_found", ExitCode.NOT_FOUND),
        (409, "conflict", ExitCode.CONFLICT),
    ],
)
def test_an_id_that_leads_nowhere_is_refused_in_the_api_s_words(
    slipway: Slipway, api: FakeApi, status: int, code: str, exit_code: ExitCode
) -> None:
    api.answers[f"GET /api/predictions/{ID}"] = (status, {"error": {"code": code, "message": "no such thing"}})
    ran = slipway("explain", ID)
    assert (ran.code, ran.err) == (exit_code, "slipway: no such thing\n")


def test_no_id_at_all_is_refused_before_anything_is_asked(slipway: Slipway, api: FakeApi) -> None:
    ran = slipway("explain", "")
    assert (ran.code, "no prediction id is given" in ran.err) == (ExitCode.USAGE, True)
    assert api.asked == []
