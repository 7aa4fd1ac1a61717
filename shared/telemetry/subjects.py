"""Rows by groups of the subjects that asked for them: how many independent rows they are worth, without naming anybody.

A subject's rows resemble each other, and a subject keeps its version: what tells two versions apart is subjects, not
rows. So rows are counted by GROUPS groups, into which a hash draws subjects. Such counts add like all others, over pods
and hours, since a subject has one group everywhere; and how unevenly they lie says what the sum of squares of the
subjects' rows is (Alon, Matias and Szegedy 1999, "The space complexity of approximating the frequency moments"), with a
standard error of sqrt(2 / GROUPS). Rows divided by that sum over rows is the effective number of rows where those of a
subject are all alike (Kish 1965, section 8.2): fewer than subjects where few of them ask for most.

A group's hash is CRC-32 of the subject's UTF-8, finished by SplitMix64: consecutive names fall as drawn, and it has
nothing to do with the hash that assigns versions. Golden vectors: tests/unit/telemetry/subject_groups.json. Loads
numpy where something is computed.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    type Groups = NDArray[np.int64]

GROUPS = 64
_GROUP_BITS = 6


@dataclass(frozen=True, slots=True)
class Worth:
    """What rows are worth: so many independent ones. `freedom` degrees stand behind it; None: it is no estimate."""

    rows: float
    freedom: float | None = None


def groups_of(subjects: Sequence[str]) -> "Groups":
    """The group of each subject, shape [n]. Raises UnicodeEncodeError."""
    import numpy as np  # noqa: PLC0415

    state = np.fromiter([crc32(subject.encode()) for subject in subjects], dtype=np.uint64, count=len(subjects))
    state += np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((state ^ (state >> np.uint64(31))) >> np.uint64(64 - _GROUP_BITS)).astype(np.int64)


def grouped(subjects: Sequence[str | None], sizes: Sequence[int]) -> "Groups":
    """Rows by group, [GROUPS], of requests of so many rows of these subjects.

    A request that names nobody stands for itself: its rows fall in a group that is drawn, and one row alone in none.
    Raises UnicodeEncodeError.
    """
    import numpy as np  # noqa: PLC0415

    found = np.zeros(GROUPS, dtype=np.int64)
    named = [(subject, size) for subject, size in zip(subjects, sizes, strict=True) if subject is not None]
    if named:
        np.add.at(found, groups_of([subject for subject, _ in named]), [size for _, size in named])
    if len(named) < len(subjects):
        for subject, size in zip(subjects, sizes, strict=True):
            if subject is None and size > 1:
                found[random.randrange(GROUPS)] += size  # noqa: S311 - a draw, no secret
    return found


def worth_of(rows: float, groups: "Sequence[float] | NDArray[np.float64]") -> Worth:
    """What so many rows are worth, those by group being `groups`, and all others independent."""
    import numpy as np  # noqa: PLC0415

    by_group = np.asarray(groups, dtype=np.float64)
    named = float(by_group.sum())
    if not named or rows <= 0:
        return Worth(rows=rows)
    spread = float(np.square(by_group - named / GROUPS).sum()) * GROUPS / (GROUPS - 1)
    # Each row is a square of its own at least, and all of one subject at most.
    squares = min(max(spread, named), named**2)
    return Worth(rows=rows * rows / (squares + max(0.0, rows - named)), freedom=GROUPS - 1.0)
