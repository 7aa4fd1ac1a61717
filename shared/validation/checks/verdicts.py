"""Words that every check uses."""

from collections.abc import Sequence

from shared.core.verdict import Outcome, Verdict
from shared.validation.refusal import excerpt


def passed(check: str, sentence: str, *, n: int | None = None, evidence: str | None = None) -> Verdict:
    """A PASS verdict without a number to compare."""
    return Verdict(check=check, outcome=Outcome.PASS, sentence=sentence, n=n, evidence=evidence)


def failed(check: str, sentence: str, *, n: int | None = None, evidence: str | None = None) -> Verdict:
    """A FAIL verdict without a number to compare."""
    return Verdict(check=check, outcome=Outcome.FAIL, sentence=sentence, n=n, evidence=evidence)


def unclear(check: str, sentence: str, *, advisory: bool = False) -> Verdict:
    """An INCONCLUSIVE verdict: what is wanted was not there to look at."""
    return Verdict(check=check, outcome=Outcome.INCONCLUSIVE, sentence=sentence, advisory=advisory)


def size(count: int) -> str:
    """A number of bytes for people, as in `12.3 MB`."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1_000:
            return f"{value:.3g} {unit}"
        value /= 1_000
    return f"{value:.3g} GB" if value < 1_000 else f"{value:,.0f} GB"


def listed(names: Sequence[str], *, limit: int = 5, quoted: bool = False) -> str:
    """The first names, each of bounded length, and how many more there are."""
    shown = [excerpt(name, 150) for name in names[:limit]]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) if quoted else name for name in shown) + more
