"""How long a version's runs take, learnt from each: what decides where the next one runs."""

_FORGET = 0.1
_SIZES = 40


class RunTimes:
    """How long a version's runs take, by the bytes of their inputs to the next power of two: a mean that forgets."""

    __slots__ = ("_means_s",)

    def __init__(self) -> None:
        self._means_s: list[float] = [0.0] * _SIZES

    def add(self, input_bytes: int, took_s: float) -> None:
        """Learn from a run."""
        place = min(input_bytes.bit_length(), _SIZES - 1)
        mean_s = self._means_s[place]
        self._means_s[place] = took_s if not mean_s else mean_s + _FORGET * (took_s - mean_s)

    def expected_s(self, input_bytes: int) -> float:
        """How long a run will take; infinity where nothing like it was measured. From the nearest size that was."""
        place = min(input_bytes.bit_length(), _SIZES - 1)
        if measured_s := self._means_s[place]:
            return measured_s
        for distance in range(1, _SIZES):
            for near in (place + distance, place - distance):
                if 0 <= near < _SIZES and self._means_s[near]:
                    return self._means_s[near] * max(1.0, 2.0 ** (place - near))
        return float("inf")
