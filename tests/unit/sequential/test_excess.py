"""The test of two error rates: exact under the null, quick where the candidate fails, the same after a restart."""

import itertools
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.errors import InvalidInputError
from shared.sequential.evariable import Block
from shared.sequential.excess import Claim, ExcessState, ExcessTest

VECTORS = json.loads(Path(__file__).with_name("excess_vectors.json").read_text())


def chance(failed: int, requests: int, rate: float) -> float:
    return math.comb(requests, failed) * rate**failed * (1 - rate) ** (requests - failed)


def drawn(generator: random.Random, *, requests: int, share: float, rates: tuple[float, float]) -> Block:
    """A block of requests, each of which the plan gives to the candidate with the probability `share`."""
    candidate = sum(generator.random() < share for _ in range(requests))
    return Block(
        candidate=candidate,
        candidate_failed=sum(generator.random() < rates[0] for _ in range(candidate)),
        stable=requests - candidate,
        stable_failed=sum(generator.random() < rates[1] for _ in range(requests - candidate)),
    )


def candidate_requests_until_proof(blocks: Iterator[Block], test: ExcessTest, level: float) -> int:
    for block in blocks:
        test.add(block)
        if test.proves(level):
            return test.total.candidate
    raise AssertionError("never proven")


def stakes(claim: Claim, margin: float, sizes: list[tuple[int, int]]) -> Iterator[tuple[list[tuple[int, int]], float]]:
    """For each way in which the blocks can turn out: the arms' failures in each, and what the stake has become."""
    ways = [itertools.product(range(candidate + 1), range(stable + 1)) for candidate, stable in sizes]
    for failures in itertools.product(*map(list, ways)):
        test = ExcessTest(claim=claim, margin=margin)
        for (candidate, stable), (failed, stable_failed) in zip(sizes, failures, strict=True):
            test.add(Block(candidate=candidate, candidate_failed=failed, stable=stable, stable_failed=stable_failed))
        yield list(failures), math.exp(test.log_evidence)


def likelihood(
    failures: list[tuple[int, int]], sizes: list[tuple[int, int]], rates: list[tuple[float, float]]
) -> float:
    """How likely it is that the blocks turn out so."""
    return math.prod(
        chance(failed, requests, rate)
        for block in zip(failures, sizes, rates, strict=True)
        for failed, requests, rate in zip(*block, strict=True)
    )


@pytest.mark.parametrize("sizes", [[(1, 1), (2, 1)], [(1, 5), (1, 3)], [(1, 1), (1, 2), (1, 1)]])
@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_the_stakes_mean_after_any_blocks_is_at_most_one_under_the_null(
    sizes: list[tuple[int, int]], margin: float
) -> None:
    for claim in Claim:
        outcomes = list(stakes(claim, margin, sizes))
        # At the null's edge in each block; then drifting from block to block, both arms alike.
        steady = [[place * (1 - margin)] * len(sizes) for place in (0.0, 0.02, 0.5, 1.0)]
        for stable_rates in (*steady, [0.1, 0.8, 0.4][: len(sizes)]):
            rates = [(rate + margin, rate) for rate in stable_rates]
            mean = math.fsum(stake * likelihood(failures, sizes, rates) for failures, stake in outcomes)
            assert mean <= 1 + 1e-9, (claim, rates)


@pytest.mark.parametrize(("share", "most"), [(0.05, 8), (0.2, 12), (0.5, 20)])
def test_a_candidate_that_fails_everything_is_found_within_a_few_requests(share: float, most: int) -> None:
    generator = random.Random(1)
    blocks = (drawn(generator, requests=20, share=share, rates=(1.0, 0.001)) for _ in itertools.count())
    test = ExcessTest(claim=Claim.WORSE, margin=0.0)
    assert candidate_requests_until_proof(blocks, test, 0.001) <= most + 20 * share


def test_a_candidate_that_fails_one_in_twenty_is_found_within_some_hundred_requests() -> None:
    generator = random.Random(2)
    blocks = (drawn(generator, requests=100, share=0.05, rates=(0.05, 0.001)) for _ in itertools.count())
    assert candidate_requests_until_proof(blocks, ExcessTest(claim=Claim.WORSE, margin=0.0), 0.001) <= 300


def test_a_candidate_that_turns_bad_after_a_million_good_requests_is_found_as_well() -> None:
    test = ExcessTest(claim=Claim.WORSE, margin=0.0)
    for _ in range(1_000):
        test.add(Block(candidate=1_000, stable=19_000, stable_failed=19))
    before = test.total.candidate
    bad = (Block(candidate=10, candidate_failed=10, stable=190) for _ in itertools.count())
    assert candidate_requests_until_proof(bad, test, 0.001) - before <= 50


def test_no_errors_at_all_prove_nothing_against_the_candidate() -> None:
    test = ExcessTest(claim=Claim.WORSE, margin=0.0)
    for _ in range(200):
        test.add(Block(candidate=50, stable=950))
    assert test.p_value == 1.0


def test_an_outage_of_both_arms_proves_nothing() -> None:
    test = ExcessTest(claim=Claim.WORSE, margin=0.0)
    for failing in [False] * 50 + [True] * 50 + [False] * 50:
        test.add(Block(candidate=5, candidate_failed=5 * failing, stable=95, stable_failed=95 * failing))
    assert not test.proves(0.05)


def test_an_excess_within_the_margin_proves_nothing_and_one_beyond_it_does() -> None:
    within, beyond = (ExcessTest(claim=Claim.WORSE, margin=0.02) for _ in range(2))
    for _ in range(300):
        within.add(Block(candidate=200, candidate_failed=6, stable=800, stable_failed=8))
        beyond.add(Block(candidate=200, candidate_failed=12, stable=800, stable_failed=8))
    assert not within.proves(0.05)
    assert beyond.proves(0.001)


def test_an_equal_candidate_is_proven_not_worse_than_the_margin_and_a_worse_one_is_not() -> None:
    equal, worse = (ExcessTest(claim=Claim.NOT_WORSE, margin=0.02) for _ in range(2))
    for _ in range(100):
        equal.add(Block(candidate=50, candidate_failed=1, stable=450, stable_failed=9))
        worse.add(Block(candidate=50, candidate_failed=2, stable=450, stable_failed=9))
    assert equal.proves(0.05)
    assert not worse.proves(0.05)


def test_two_claims_about_the_same_requests_are_never_both_proven() -> None:
    worse, not_worse = ExcessTest(claim=Claim.WORSE, margin=0.01), ExcessTest(claim=Claim.NOT_WORSE, margin=0.01)
    generator = random.Random(3)
    for _ in range(150):
        block = drawn(generator, requests=200, share=0.2, rates=(0.05, 0.01))
        worse.add(block)
        not_worse.add(block)
    assert worse.proves(0.001)
    assert not not_worse.proves(0.2)


def test_a_proof_stays_whatever_follows() -> None:
    test = ExcessTest(claim=Claim.WORSE, margin=0.0)
    test.add(Block(candidate=10, candidate_failed=10, stable=190))
    proven = test.p_value
    test.add(Block(candidate=10_000, stable=190_000, stable_failed=190_000))
    assert test.log_evidence < -math.log(proven)
    assert test.p_value == proven


def test_a_block_that_lacks_an_arm_waits_for_the_next() -> None:
    apart, together = (ExcessTest(claim=Claim.WORSE, margin=0.0) for _ in range(2))
    apart.add(Block(stable=30, stable_failed=1))
    assert apart.state.blocks == 0
    apart.add(Block(candidate=2, candidate_failed=1, stable=8))
    together.add(Block(candidate=2, candidate_failed=1, stable=38, stable_failed=1))
    assert apart.state == together.state
    assert apart.total == Block(candidate=2, candidate_failed=1, stable=38, stable_failed=1)


blocks_of = st.lists(
    st.builds(
        lambda candidate, stable, a, b: Block(
            candidate=candidate, candidate_failed=round(candidate * a), stable=stable, stable_failed=round(stable * b)
        ),
        st.integers(0, 1_000),
        st.integers(0, 1_000),
        st.floats(0, 1),
        st.floats(0, 1),
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(blocks_of, st.integers(0, 8), st.sampled_from(Claim), st.sampled_from([0.0, 0.01, 0.5]))
def test_a_stored_test_goes_on_as_if_it_had_not_been_stored(
    blocks: list[Block], stop: int, claim: Claim, margin: float
) -> None:
    whole, first = ExcessTest(claim=claim, margin=margin), ExcessTest(claim=claim, margin=margin)
    for block in blocks:
        whole.add(block)
    for block in blocks[:stop]:
        first.add(block)
    second = ExcessTest.of(ExcessState.model_validate_json(first.state.model_dump_json()))
    for block in blocks[stop:]:
        second.add(block)
    assert second.state == whole.state
    assert second.total == sum(blocks, start=Block())
    assert 0 <= second.p_value <= 1


def test_a_state_of_other_code_is_refused() -> None:
    state = ExcessTest(claim=Claim.WORSE, margin=0.0).state
    for other in (state.model_copy(update={"log_stakes": (0.0,)}), state.model_copy(update={"schema_version": 2})):
        with pytest.raises(InvalidInputError, match="start the test anew from its blocks"):
            ExcessTest.of(other)


@pytest.mark.parametrize("margin", [-0.1, 1.0, math.nan])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(InvalidInputError, match="at least 0 and below 1"):
        ExcessTest(claim=Claim.WORSE, margin=margin)


@pytest.mark.parametrize("vector", VECTORS)
def test_the_golden_vectors_hold(vector: dict[str, object]) -> None:
    test = ExcessTest(claim=Claim(str(vector["claim"])), margin=float(str(vector["margin"])))
    found = []
    for candidate, candidate_failed, stable, stable_failed in vector["blocks"]:  # type: ignore[attr-defined]
        test.add(
            Block(candidate=candidate, candidate_failed=candidate_failed, stable=stable, stable_failed=stable_failed)
        )
        found.append(test.log_evidence)
    assert found == pytest.approx(vector["log_evidence"], abs=1e-6)
