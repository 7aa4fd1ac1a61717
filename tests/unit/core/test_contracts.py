"""What the planes tell each other is checked alike as a document, in code, and as a field of a pydantic model."""

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pydantic
import pytest
from aks_serving.counts import VersionTally
from msgspec import ValidationError
from pydantic import BaseModel, TypeAdapter

from shared.core.contracts import Contract
from shared.routing.plan import Guard, Role, Route, RoutePlan, Signing, SubjectSource
from shared.telemetry.feedback import Errors, FeedbackCounts
from shared.telemetry.profile import Profile
from shared.telemetry.window import ShadowCounts, VersionCounts, Window

DIGEST = "a" * 64
ROUTE: dict[str, Any] = {
    "version": 1,
    "role": "stable",
    "weight_bp": 10_000,
    "artifact_digest": DIGEST,
    "size_bytes": 5,
}
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Document(BaseModel):
    route: Route
    guard: Guard = Guard()
    counts: dict[int, VersionCounts] = {}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"weight_bp": -1}, r"Expected `int` >= 0 - at `\$.weight_bp`"),
        ({"version": 2**53}, r"Expected `int` <= 9007199254740991 - at `\$.version`"),
        ({"weight_bp": "1"}, r"Expected `int`, got `str` - at `\$.weight_bp`"),
        ({"artifact_digest": DIGEST + "\n"}, r"regex .* - at `\$.artifact_digest`"),
        ({"external": [{"name": "x", "digest": "y", "size_bytes": 1}]}, r"regex .* - at `\$.external\[0\].digest`"),
    ],
)
def test_what_is_made_in_code_is_refused_as_what_is_read_is(changed: dict[str, Any], said: str) -> None:
    for make in (Route.model_validate, lambda given: Route(**given)):
        with pytest.raises(ValidationError, match=said):
            make(ROUTE | changed)


@pytest.mark.parametrize(
    ("contract", "data"),
    [
        (Window, b'{"difference":' + b"[" * 100_000),
        (Profile, b'{"rows":1,"features":[{"name":' + b"[" * 100_000),
    ],
)
def test_what_is_nested_too_deep_is_refused_as_what_is_wrong_is(contract: type[Contract], data: bytes) -> None:
    with pytest.raises(ValidationError, match="nested too deep"):
        contract.model_validate_json(data)


@pytest.mark.parametrize("generation", [0, 2**53, 2**64, 10**30])
def test_a_generation_is_a_whole_number_that_all_readers_hold(generation: int) -> None:
    plan = {"endpoint": "e", "salt": "", "routes": [ROUTE]}
    assert RoutePlan.model_validate(plan | {"generation": 2**53 - 1}).generation == 2**53 - 1
    with pytest.raises(ValidationError, match="generation"):
        RoutePlan.model_validate(plan | {"generation": generation})


def test_an_unknown_field_is_refused_and_a_part_that_is_wrong_is_named_within_the_whole() -> None:
    plan = {"endpoint": "e", "generation": 1, "salt": "", "routes": [ROUTE]}
    assert RoutePlan.model_validate(plan).routes == (Route(**ROUTE),)
    with pytest.raises(ValidationError, match="unknown field `wish`"):
        RoutePlan.model_validate(plan | {"wish": 1})
    with pytest.raises(ValidationError, match=r"at `\$.routes\[0\].weight_bp`"):
        RoutePlan.model_validate(plan | {"routes": [ROUTE | {"weight_bp": 10_001}]})


def test_a_pydantic_model_reads_writes_and_refuses_a_contract_in_it_as_a_model_of_its_own() -> None:
    counts = VersionCounts(requests=3, latency_ms={-42: 1}, shadow=ShadowCounts(squared_millionths=10**30))
    document = Document(route=Route(**ROUTE), guard=Guard(level=0.5), counts={1: counts})
    assert document.model_dump(mode="json")["counts"]["1"]["latency_ms"] == {"-42": 1}
    assert document.model_dump(mode="json")["counts"]["1"]["shadow"]["squared_millionths"] == str(10**30)
    for again in (
        Document.model_validate_json(document.model_dump_json()),
        Document.model_validate(document.model_dump()),
        Document.model_validate(document.model_dump(mode="json")),
    ):
        assert again == document
        assert type(again.route.role) is Role
    with pytest.raises(pydantic.ValidationError) as refused:
        Document.model_validate({"route": ROUTE | {"weight_bp": 10_001, "wish": 1}, "guard": {"level": 0}})
    assert sorted(error["loc"] for error in refused.value.errors()) == [
        ("guard", "level"),
        ("route", "weight_bp"),
        ("route", "wish"),
    ]


def test_the_schema_of_a_model_describes_the_contracts_in_it() -> None:
    schemas = Document.model_json_schema()["$defs"]
    assert schemas["Guard"]["properties"]["level"] | {"title": ""} == {
        "default": 0.001,
        "exclusiveMaximum": 1,
        "exclusiveMinimum": 0,
        "title": "",
        "type": "number",
    }
    assert schemas["Guard"]["additionalProperties"] is False
    assert schemas["Sha256"] == {"pattern": "^[0-9a-f]{64}$", "type": "string"}
    assert schemas["Route"]["required"] == ["version", "role", "weight_bp", "artifact_digest", "size_bytes"]


@pytest.mark.parametrize(
    "one",
    [
        Route(**ROUTE, signing=Signing(digest=DIGEST, trusted_keys=("key",))),
        RoutePlan(endpoint="e", generation=1, salt="s", routes=(Route(**ROUTE),), subject=SubjectSource(header=None)),
        FeedbackCounts(
            version=1, generation=1, role="stable", reason="assigned", hour=AT, numbers=Errors(error=-(10**20))
        ),
        Window(endpoint="e", pod="p", sequence=1, generation=1, started_at=AT, ended_at=AT, loaded=[1], deaths=None),
    ],
)
def test_what_msgspec_writes_pydantic_reads_and_the_other_way_round(one: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(type(one))
    assert adapter.validate_json(one.model_dump_json()) == one
    assert type(one).model_validate_json(adapter.dump_json(one)) == one


def test_sums_that_grew_great_while_they_were_counted_are_written_as_text() -> None:
    counts = ShadowCounts()
    counts.squared_millionths += 2**53
    assert counts.model_dump()["squared_millionths"] == str(2**53)


def test_a_server_s_tally_of_great_sums_is_written_as_text_within_its_window() -> None:
    tally = VersionTally()
    tally.shadowed().squared_millionths += 2**53
    assert tally.counts().model_dump()["shadow"]["squared_millionths"] == str(2**53)


def test_contracts_are_read_and_written_without_pydantic() -> None:
    look = (
        "import sys; from shared.telemetry.window import Deaths as D; D.model_validate_json("
        "D(rollout_id='', processes={}).model_dump_json());"
        " print([name for name in sys.modules if name.startswith('pydantic')])"
    )
    ended = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
