"""Projections of texts: of each text alone, whatever stands beside it, and bounded."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.telemetry.profile import PROJECTIONS
from shared.telemetry.texts import MAX_BYTES, OF_BYTES, projected

_TEXTS = st.text(st.characters(), max_size=20) | st.binary(max_size=20) | st.none() | st.just("ab" * MAX_BYTES)


@settings(max_examples=60)
@given(st.lists(_TEXTS, min_size=1, max_size=12), st.integers(0, 2**32))
def test_a_text_has_its_numbers_whatever_stands_beside_it(values: list[object], seed: int) -> None:
    together = projected(values)
    assert together.shape == (len(values), PROJECTIONS)
    assert np.abs(together).max() <= 1.0
    order = list(range(len(values)))
    random.Random(seed).shuffle(order)
    shuffled = projected([values[at] for at in order])
    for place, at in enumerate(order):
        np.testing.assert_array_equal(shuffled[place], together[at])
        np.testing.assert_array_equal(projected([values[at]])[0], together[at])


def test_many_texts_are_as_few_are() -> None:
    rng = random.Random(1)
    values: list[object] = ["".join(rng.choices("abcé ", k=rng.randint(0, 40))) for _ in range(1_000)]
    one_by_one = np.vstack([projected([value]) for value in values])
    np.testing.assert_array_equal(projected(values), one_by_one)


def test_an_empty_text_has_noughts_and_of_a_long_one_the_beginning_counts() -> None:
    assert not projected(["", b""]).any()
    assert projected([]).shape == (0, PROJECTIONS)
    long = "x" * (MAX_BYTES - 2)
    found = projected([long + "ab", long + "ab" + "c" * 50])
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != projected([long[1:] + "ab" + "c"])[0]).any()


def test_letters_tell_of_single_bytes_and_their_order_of_runs() -> None:
    one, other = projected(["listen", "silent"])
    np.testing.assert_array_equal(one[:OF_BYTES], other[:OF_BYTES])
    assert (one[OF_BYTES:] != other[OF_BYTES:]).any()
