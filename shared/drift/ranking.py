"""Which inputs are most to blame for drift."""

from collections.abc import Sequence

from shared.drift.scoring import FeatureScore
from shared.telemetry.profile import ColumnSource, SummarySource


def ranked(scores: Sequence[FeatureScore]) -> list[FeatureScore]:
    """The inputs' scores, the most to blame first: those that drifted by their effect, and then the others by theirs.

    The effect is Cohen's w of the bins less what chance adds, which neither the size of the window nor the number of
    bins raises. Answers and errors of reconstruction follow from inputs, and are left out. Where features go together,
    the one that moved most comes first.
    """
    inputs = [score for score in scores if isinstance(score.feature.source, ColumnSource | SummarySource)]
    return sorted(inputs, key=lambda score: (not score.drifted, -score.effect, -score.psi))
