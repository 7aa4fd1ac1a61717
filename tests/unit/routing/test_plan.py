from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import ValidationError

from shared.core.slots import Slot
from shared.routing.plan import (
    FULL_WEIGHT_BP,
    MAX_FILE_NAME_LENGTH,
    ArtifactFile,
    Role,
    Route,
    RoutePlan,
    Signing,
    artifact_blob_name,
    plan_blob_name,
)


def _route(version: int, role: Role, weight_bp: int, slot: Slot | None = None) -> Route:
    return Route(version=version, role=role, weight_bp=weight_bp, artifact_digest="0" * 64, size_bytes=1, slot=slot)


def _plan(*routes: Route) -> RoutePlan:
    return RoutePlan(endpoint="churn", generation=1, salt="s", routes=routes)


@pytest.mark.parametrize(
    ("routes", "reason"),
    [
        ((_route(1, Role.STABLE, 9_000),), "sum to 9000"),
        ((_route(1, Role.STABLE, 9_000), _route(1, Role.CANDIDATE, 1_000)), "two routes"),
        ((_route(1, Role.STABLE, 9_000), _route(2, Role.STABLE, 1_000)), "more than one stable"),
        ((_route(1, Role.STABLE, 0), _route(2, Role.CANDIDATE, 0)), "sum to 0"),
        ((_route(1, Role.CANDIDATE, 10),), "sum to 10"),
    ],
)
def test_an_incoherent_plan_is_refused(routes: tuple[Route, ...], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        _plan(*routes)


def test_a_first_candidate_without_traffic_is_a_plan() -> None:
    plan = _plan(_route(1, Role.CANDIDATE, 0))
    assert plan.stable is None
    assert plan.candidate is not None


def test_a_plan_survives_its_own_json() -> None:
    plan = _plan(_route(1, Role.STABLE, 9_000), _route(2, Role.CANDIDATE, 1_000))
    assert RoutePlan.model_validate_json(plan.model_dump_json()) == plan


@pytest.mark.parametrize(
    "digest",
    ["", "/etc/passwd", "../../victim.txt", "0" * 63, "0" * 65, "0" * 64 + "\n", "A" * 64, "g" * 64, "0" * 61 + "/.."],
)
def test_what_is_no_digest_is_refused_wherever_a_plan_has_one(digest: str) -> None:
    made: list[Callable[[str], object]] = [
        lambda text: Route(version=1, role=Role.STABLE, weight_bp=0, artifact_digest=text, size_bytes=1),
        lambda text: Route(
            version=1, role=Role.STABLE, weight_bp=0, artifact_digest="0" * 64, size_bytes=1, golden_digest=text
        ),
        lambda text: ArtifactFile(name="weights.bin", digest=text, size_bytes=1),
        lambda text: Signing(digest=text, trusted_keys=("key",)),
    ]
    for make in made:
        make("0123456789abcdef" * 4)
        with pytest.raises(ValidationError, match="digest"):
            make(digest)


def test_a_file_s_name_has_a_bound() -> None:
    longest = "n" * MAX_FILE_NAME_LENGTH
    assert ArtifactFile(name=longest, digest="0" * 64, size_bytes=1).name == longest
    with pytest.raises(ValidationError, match="name"):
        ArtifactFile(name=longest + "n", digest="0" * 64, size_bytes=1)
    with pytest.raises(ValidationError, match="model_file"):
        Route(
            version=1,
            role=Role.STABLE,
            weight_bp=0,
            artifact_digest="0" * 64,
            size_bytes=1,
            model_file=longest + "n",
        )


def test_blob_names() -> None:
    assert plan_blob_name("churn") == "churn.json"
    assert artifact_blob_name("ab") == "sha256/ab"


BOTH_WEIGHTS = st.integers(0, FULL_WEIGHT_BP)
A_SLOT = st.sampled_from([None, Slot.BLUE, Slot.GREEN])


@given(weight_bp=BOTH_WEIGHTS, stable=A_SLOT, candidate=A_SLOT)
def test_what_each_pod_of_a_plan_gives_a_version_is_its_weight_where_both_are_and_everything_where_it_is_alone(
    weight_bp: int, stable: Slot | None, candidate: Slot | None
) -> None:
    assume(stable is None or stable is not candidate)
    routes = (
        _route(1, Role.STABLE, FULL_WEIGHT_BP - weight_bp, stable),
        _route(2, Role.CANDIDATE, weight_bp, candidate),
    )
    plan = _plan(*routes)
    for slot in (None, *Slot):
        seen = plan.for_slot(slot)
        assert (seen.endpoint, seen.generation, seen.salt) == (plan.endpoint, plan.generation, plan.salt)
        if stable is candidate:
            assert seen == plan if slot is stable else not seen.routes
        else:
            expected = [route.version for route in routes if route.slot is slot]
            assert [(route.version, route.weight_bp) for route in seen.routes] == [
                (version, FULL_WEIGHT_BP) for version in expected
            ]
        RoutePlan.model_validate(seen.model_dump())
        assert seen.for_slot(slot) == seen


def test_a_first_candidate_in_pods_of_its_own_has_no_traffic_there_before_it_is_promoted() -> None:
    plan = _plan(_route(1, Role.CANDIDATE, 0, Slot.BLUE))
    assert plan.for_slot(Slot.BLUE) == plan
    assert plan.for_slot(None).routes == plan.for_slot(Slot.GREEN).routes == ()


@pytest.mark.parametrize("slot", list(Slot))
def test_two_versions_in_pods_of_their_own_share_none(slot: Slot) -> None:
    with pytest.raises(ValidationError, match=f"two routes have the slot {slot}"):
        _plan(_route(1, Role.STABLE, 9_000, slot), _route(2, Role.CANDIDATE, 1_000, slot))
    assert _plan(_route(1, Role.STABLE, 9_000, slot), _route(2, Role.CANDIDATE, 1_000, slot.other)).is_slotted


def test_a_slot_goes_with_neither_a_shadow_nor_chosen_pods() -> None:
    with pytest.raises(ValidationError, match="shadow"):
        _plan(_route(1, Role.STABLE, FULL_WEIGHT_BP, Slot.BLUE), _route(2, Role.SHADOW, 0))
    apart = (_route(1, Role.STABLE, 9_000), _route(2, Role.CANDIDATE, 1_000, Slot.BLUE))
    with pytest.raises(ValidationError, match="pods are named"):
        RoutePlan(endpoint="churn", generation=1, salt="s", routes=apart, pods=("pod-1",))
