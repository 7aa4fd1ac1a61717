"""The bin of each row in each feature of a profile. Loads numpy: for the sandboxed process."""

import numpy as np
from numpy.typing import NDArray

from shared.drift.binning import CategoryBins, NumberBins
from shared.telemetry.featurecolumns import Columns, numbers_of, texts_of
from shared.telemetry.featuretally import (
    NumberCounter,
    components_of,
    is_column,
    numbers_table,
    reconstruction_error,
    value_of,
)
from shared.telemetry.profile import CategoryFeature, Feature, NumberFeature, Profile, ReconstructionSource

type Codes = NDArray[np.int64]


def codes_of(profile: Profile, columns: Columns) -> Codes:
    """Where each row is counted, [n, features]; a tally of the same rows counts as many in each bin."""
    return np.column_stack([_codes(feature, profile, columns) for feature in profile.features])


def _codes(feature: Feature, profile: Profile, columns: Columns) -> Codes:
    if isinstance(feature, CategoryFeature):
        return _of_categories(feature, columns)
    if isinstance(feature.source, ReconstructionSource):
        parts = [one for one in profile.features if isinstance(one, NumberFeature) and is_column(one)]
        _, steps = NumberCounter(parts).counted(numbers_table([one.source for one in parts], columns), with_z=True)
        values = reconstruction_error(steps, components_of(feature.source))
    else:
        values = numbers_of(value_of(feature.source, columns))
    return NumberBins(edges=feature.edges).codes(values)


def _of_categories(feature: CategoryFeature, columns: Columns) -> Codes:
    values = value_of(feature.source, columns)
    # One text a row, told as the tally tells it.
    texts = [next(iter(texts_of(values[at : at + 1]))) for at in range(len(values))]
    known = CategoryBins(categories=feature.categories).codes(np.array(texts, dtype=np.str_))
    is_rare = np.isin(texts, np.array(feature.rare, dtype=np.str_)) if feature.rare else np.zeros(len(texts), np.bool_)
    unknown = known == len(feature.categories)
    result: Codes = known + (unknown & ~is_rare)
    return result
