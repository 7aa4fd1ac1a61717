"""How often equal arms are called worse, where one looks after each block."""

import random

import pytest

from shared.sequential.excess import Claim, ExcessTest
from tests.unit.sequential.test_excess import drawn


@pytest.mark.parametrize(("rate", "share"), [(0.0, 0.05), (0.02, 0.05), (0.2, 0.2), (0.5, 0.5), (1.0, 0.05)])
def test_equal_arms_are_rarely_called_worse_however_often_one_looks(rate: float, share: float) -> None:
    generator, level, trials = random.Random(4), 0.25, 60
    false = 0
    for _ in range(trials):
        test = ExcessTest(claim=Claim.WORSE, margin=0.0)
        for _ in range(40):
            test.add(drawn(generator, requests=40, share=share, rates=(rate, rate)))
        false += test.proves(level)
    assert false <= level * trials
