"""The reference profile of a version: the bins that its traffic is counted in, and how its reference data filled them.

Made once, when a version is validated, and stored by its content's hash like golden rows. Each server counts by it;
what was counted by one profile is never added to what was counted by another. The bins come from one half of the
reference rows and the counts from the other, so that both counts are samples that know nothing of how the bins were
chosen.

A profile is a list of features, and how each is had from the inputs: a column of a table; a summary of an input that is
too wide to look at value by value (images, text, audio); the error of a reconstruction of all columns from a few
(multivariate drift); what the version answered. Whatever it is, it is a number or a category a row, counted alike.
Loads no numpy: the control plane reads profiles too.
"""

import sys
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, ValidationError

from shared.core.canonical import digest_of
from shared.core.contracts import Contract, Count, Finite, First

MAX_EDGES = 64
MAX_CATEGORIES = 20
MAX_KNOWN = 1_000
MAX_FEATURES = 600
MAX_COLUMNS = 256
"""An input with more columns is summarised."""
PROJECTIONS = 8
MAX_COMPONENTS = 16


class Summary(StrEnum):
    """What is looked at of a row of a wide input."""

    MEAN = "mean"
    SPREAD = "spread"
    """The standard deviation of the row's values."""
    NORM = "norm"
    """The root of the mean square."""
    PROJECTION = "projection"
    """The sum of the values, each with a sign that its place and the feature's `place` give, over the root of their
    number: a random projection (Achlioptas 2003)."""
    TEXT_PROJECTION = "text_projection"
    """The mean sign of a text's bytes or runs of three (shared.telemetry.texts). A name of its own: a server that has
    none of texts refuses the profile, and does not count every row as missing."""
    LENGTH = "length"
    """Characters of a text."""


class ColumnSource(Contract, frozen=True, kw_only=True, tag_field="kind", tag="column"):
    """A column of an input with a row a case: `place` along its second axis; 0 where it has one axis."""

    kind: ClassVar[Literal["column"]] = "column"
    input: str
    place: Annotated[int, Meta(ge=0, lt=MAX_COLUMNS)] = 0


class SummarySource(Contract, frozen=True, kw_only=True, tag_field="kind", tag="summary"):
    """A number that summarises a row of an input."""

    kind: ClassVar[Literal["summary"]] = "summary"
    input: str
    summary: Summary
    place: Count = 0
    """Which projection."""


class ReconstructionSource(Contract, frozen=True, kw_only=True, tag_field="kind", tag="reconstruction"):
    """The distance of a row from the plane that holds most of the reference's variance (Jackson and Mudholkar 1979).

    Of the profile's numeric columns in their order, z = (x - mean) / spread, what is not finite as 0: the root of the
    mean square of z - z V V', where the rows of `components` are the columns of V, shape [k, columns].
    """

    kind: ClassVar[Literal["reconstruction"]] = "reconstruction"
    components: Annotated[tuple[tuple[Finite, ...], ...], Meta(max_length=MAX_COMPONENTS)]


class AnswerSource(Contract, frozen=True, kw_only=True, tag_field="kind", tag="answer"):
    """What the version answered: its first output (`prediction`), or the greatest of its scores (`confidence`)."""

    kind: ClassVar[Literal["answer"]] = "answer"
    of: Literal["prediction", "confidence"]
    output: str


type Source = ColumnSource | SummarySource | ReconstructionSource | AnswerSource


class NumberFeature(Contract, frozen=True, kw_only=True, tag_field="kind", tag="number"):
    """Numbers, in bins up to each of `edges` (rising), above the last, and missing (NaN). Infinities lie in the
    outermost bins, and are counted by themselves besides.
    """

    kind: ClassVar[Literal["number"]] = "number"
    name: str
    source: Source
    edges: Annotated[tuple[Finite, ...], Meta(max_length=MAX_EDGES)]
    counts: tuple[Count, ...]
    """Reference rows in each bin, the missing last."""
    infinite: Count = 0
    mean: Finite = 0.0
    spread: Annotated[float, Meta(gt=0, le=sys.float_info.max)] = 1.0
    """Mean and standard deviation of the reference's finite values; 1 where they do not differ."""

    def __post_init__(self) -> None:
        """Check that its parts agree, too. Raises ValidationError."""
        super().__post_init__()
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValidationError(f"feature {self.name!r}: edges must rise")
        if len(self.counts) != self.bins:
            raise ValidationError(f"feature {self.name!r}: {len(self.counts)} counts, and {self.bins} bins")

    @property
    def bins(self) -> int:
        """How many bins there are, with that of the missing."""
        return len(self.edges) + 2

    @property
    def width(self) -> int:
        """How many cells count it: its bins, the infinite, the sums of z and of z squared."""
        return self.bins + 3


class CategoryFeature(Contract, frozen=True, kw_only=True, tag_field="kind", tag="category"):
    """Categories by their text: each of `categories`, the rarer ones of the reference, and those it does not know."""

    kind: ClassVar[Literal["category"]] = "category"
    name: str
    source: Source
    categories: Annotated[tuple[str, ...], Meta(max_length=MAX_CATEGORIES)]
    rare: Annotated[tuple[str, ...], Meta(max_length=MAX_KNOWN)] = ()
    counts: tuple[Count, ...]
    """Reference rows of each category, of the rarer ones, and of those that are in neither."""

    def __post_init__(self) -> None:
        """Check that its parts agree, too. Raises ValidationError."""
        super().__post_init__()
        if len({*self.categories, *self.rare}) != len(self.categories) + len(self.rare):
            raise ValidationError(f"feature {self.name!r}: a category stands twice")
        if len(self.counts) != self.bins:
            raise ValidationError(f"feature {self.name!r}: {len(self.counts)} counts, and {self.bins} bins")

    @property
    def bins(self) -> int:
        """How many bins there are, with those of the rare and the unseen."""
        return len(self.categories) + 2

    @property
    def width(self) -> int:
        """How many cells count it."""
        return self.bins


type Feature = NumberFeature | CategoryFeature


class Profile(Contract, frozen=True, kw_only=True, dict=True):
    """A reference profile."""

    schema_version: First = 1
    rows: Count
    """Reference rows that are counted."""
    features: Annotated[tuple[Feature, ...], Meta(max_length=MAX_FEATURES)]

    def __post_init__(self) -> None:
        """Check that its parts agree, too. Raises ValidationError."""
        super().__post_init__()
        if len({feature.name for feature in self.features}) != len(self.features):
            raise ValidationError("two features have one name")
        columns = sum(isinstance(one, NumberFeature) and one.source.kind == "column" for one in self.features)
        for feature in self.features:
            if not isinstance(feature.source, ReconstructionSource):
                continue
            if feature.kind != "number" or any(len(row) != columns for row in feature.source.components):
                raise ValidationError(f"feature {feature.name!r}: its components need {columns} numbers each")

    @property
    def width(self) -> int:
        """How many cells count a window by it."""
        return sum(feature.width for feature in self.features)

    @cached_property
    def id(self) -> str:
        """What a window that was counted by it names: its content's hash."""
        return digest_of(self.model_dump(mode="json"))

    def cells(self) -> dict[str, slice]:
        """Where the cells of each feature stand, by its name."""
        found, start = {}, 0
        for feature in self.features:
            found[feature.name] = slice(start, start + feature.width)
            start += feature.width
        return found
