"""A profile is refused where its parts contradict each other, and is named by its content."""

from typing import Any

import pytest
from msgspec import ValidationError

from shared.telemetry.profile import CategoryFeature, ColumnSource, NumberFeature, Profile, ReconstructionSource

X = ColumnSource(input="x")


def number(**changed: Any) -> NumberFeature:
    return NumberFeature.model_validate(
        {"name": "a", "source": X, "edges": (0.0, 1.0), "counts": (5, 5, 5, 0), **changed}
    )


def test_a_profile_reads_as_it_was_written_and_keeps_its_id() -> None:
    category = CategoryFeature(name="b", source=X, categories=("u", "v"), rare=("w",), counts=(9, 5, 1, 0))
    profile = Profile(rows=15, features=(number(), category))
    again = Profile.model_validate_json(profile.model_dump_json())
    assert again == profile
    assert again.id == profile.id
    assert profile.width == 4 + 3 + 4
    assert profile.cells() == {"a": slice(0, 7), "b": slice(7, 11)}
    other = Profile(rows=15, features=(number(mean=0.5), category))
    assert other.id != profile.id
    assert profile.model_copy(update={"features": other.features}).id == other.id


@pytest.mark.parametrize(
    "changed",
    [
        {"edges": (1.0, 0.0)},
        {"edges": (0.0, 0.0)},
        {"edges": (0.0, float("inf"))},
        {"edges": (0.0, float("nan"))},
        {"counts": (5, 5, 5)},
        {"counts": (5, 5, 5, -1)},
        {"spread": 0.0},
        {"spread": float("inf")},
        {"mean": float("nan")},
        {"edges": tuple(map(float, range(65))), "counts": (0,) * 67},
    ],
)
def test_a_number_that_cannot_be_counted_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        number(**changed)


@pytest.mark.parametrize(
    "changed", [{"categories": ("u", "u")}, {"rare": ("v",)}, {"counts": (1, 2, 3)}, {"categories": ("u",) * 21}]
)
def test_a_category_that_cannot_be_counted_is_refused(changed: dict[str, Any]) -> None:
    whole = {"name": "b", "source": X, "categories": ("u", "v"), "counts": (1, 2, 3, 4)}
    CategoryFeature.model_validate(whole)
    with pytest.raises(ValidationError):
        CategoryFeature.model_validate(whole | changed)


def test_a_profile_with_two_features_of_one_name_is_refused() -> None:
    with pytest.raises(ValidationError, match="one name"):
        Profile(rows=15, features=(number(), number()))


def test_components_need_a_number_for_each_column() -> None:
    source = ReconstructionSource(components=((1.0, 0.0),))
    with pytest.raises(ValidationError, match="need 1 numbers each"):
        Profile(rows=15, features=(number(), number(name="error", source=source)))
    for components in (((float("nan"),),), ((1.0,),) * 17):
        with pytest.raises(ValidationError):
            ReconstructionSource(components=components)
