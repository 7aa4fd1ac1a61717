"""Words that every check uses."""

from shared.core.verdict import Outcome, Verdict


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
