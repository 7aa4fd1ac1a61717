"""How numbers read on the pages that people look at. What is None reads as nothing."""


def figure(value: float | None) -> str:
    """Four digits, and no more of a large number's than its whole ones."""
    if value is None:
        return ""
    if value != 0 and abs(value) < 1e-4:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def between(interval: tuple[float, float] | None) -> str:
    """Both ends of an interval."""
    return f"{figure(interval[0])} to {figure(interval[1])}" if interval else ""


def count(value: int | None) -> str:
    """A whole number, its thousands set apart."""
    return "" if value is None else f"{value:,}"
