"""The report's HTML page: everything the report holds stands on it, and nothing from outside can act in it."""

import re
from html.parser import HTMLParser

import pytest

from shared.core.verdict import Outcome, Verdict, joined
from shared.registry.signature import Signature, SignatureChange, SignatureDiff, TensorSpec
from shared.validation.details import (
    CalibrationBin,
    Comparison,
    Confusion,
    Details,
    FairnessFinding,
    Latency,
    LoadFigures,
    MetricEstimate,
    Quantile,
    ReferenceDriftFinding,
    RobustnessFinding,
    SliceFinding,
)
from shared.validation.page import render_html
from shared.validation.plots import Estimate, curve, ranges, shares
from shared.validation.report import ValidationReport

HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}"

VERDICTS = (
    Verdict(check="size", outcome=Outcome.PASS, sentence="small", value=1_234_567, limit=2_000_000),
    Verdict(
        check="accuracy",
        outcome=Outcome.FAIL,
        sentence="accuracy 0.79 is below 0.85",
        n=400,
        value=0.79,
        limit=0.85,
        interval=(0.747, 0.829),
        evidence="/details/metrics",
    ),
    Verdict(check="claims", outcome=Outcome.FAIL, sentence=HOSTILE, advisory=True, evidence="/details/metrics/0"),
    Verdict(check="noninferiority", outcome=Outcome.FAIL, sentence="worse", evidence="/details/comparison/0"),
    Verdict(check="drift", outcome=Outcome.PASS, sentence="none", limit=0.1, evidence="/details/drift"),
)

FULL = Details(
    load=LoadFigures(
        load_s=0.02,
        resident_bytes=12_345_678,
        peak_bytes=20_000_000,
        predicted_server_bytes=13_000_000,
        ir_version=10,
        opsets={"ai.onnx": 18, HOSTILE: 1},
        nodes=12,
        initializers=4,
        initializer_bytes=999,
    ),
    signature=SignatureDiff(change=SignatureChange.BREAKING, differences=("the output 'p' is gone",)),
    metrics=(
        MetricEstimate(
            name="accuracy",
            value=0.79,
            interval=(0.747, 0.829),
            method="exact",
            n=400,
            higher_is_better=True,
            claimed=0.9,
        ),
        MetricEstimate(
            name="log_loss", value=3.25, interval=(3.0, 3.5), method="bootstrap", n=400, higher_is_better=False
        ),
    ),
    confusion=Confusion(classes=("cat", HOSTILE), counts=((190, 10), (74, 126))),
    calibration=(
        CalibrationBin(n=100, predicted=0.2, observed=0.3),
        CalibrationBin(n=300, predicted=0.9, observed=0.8),
    ),
    comparison=(
        Comparison(
            metric="accuracy",
            champion_version=4,
            candidate=0.79,
            champion=0.86,
            difference=-0.07,
            interval=(-0.1, -0.04),
            level=0.95,
            method="tango",
            margin=0.02,
            n=400,
            candidate_only=12,
            champion_only=40,
        ),
    ),
    slices=(
        SliceFinding(
            column="country",
            part=HOSTILE,
            metric="accuracy",
            n=60,
            value=0.5,
            rest=0.84,
            gap=0.34,
            interval=(0.2, 0.46),
            p_value=1e-7,
            q_value=3e-6,
            found=True,
        ),
    ),
    slices_tested=37,
    fairness=(
        FairnessFinding(
            column="sex",
            definition="equal_opportunity",
            gap=0.11,
            interval=(0.02, 0.2),
            highest="m",
            lowest="f",
            rates={"m": 0.81, "f": 0.7},
            counts={"m": 201, "f": 199},
        ),
    ),
    drift=(
        ReferenceDriftFinding(
            feature="age",
            kind="numeric",
            n_reference=1_000,
            n_validation=400,
            psi=0.31,
            psi_noise=0.06,
            jensen_shannon=0.04,
            hellinger=0.2,
            kolmogorov_smirnov=0.22,
            p_value=1e-9,
            q_value=1e-8,
            bins=("< 20", "20 to 40", ">= 40"),
            reference_shares=(0.3, 0.4, 0.3),
            validation_shares=(0.1, 0.4, 0.5),
            found=True,
        ),
    ),
    features_tested=30,
    robustness=(
        RobustnessFinding(probe="empty_batch", behaviour="refuses with an error", sentence="an empty batch is refused"),
    ),
    latency=Latency(
        calls=500,
        rows_a_call=1,
        quantiles=(Quantile(name="p99", candidate_ms=0.21, champion_ms=0.2, ratio=1.05, interval=(0.9, 1.2)),),
    ),
)


class Page(HTMLParser):
    """Reads a page: its elements must close in order, and what it would load or run is kept."""

    VOID = frozenset({"meta", "line", "circle", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            elif name in {"href", "src"}:
                self.links.add(value or "")
            elif name.startswith("on"):
                self.handlers.append(name)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def report(details: Details = FULL, verdicts: tuple[Verdict, ...] = VERDICTS) -> ValidationReport:
    signature = Signature(
        inputs=(TensorSpec(name=HOSTILE, datatype="FP32", shape=(-1, 30)),),
        outputs=(TensorSpec(name="label", datatype="INT64", shape=(-1,)),),
    )
    return ValidationReport(
        outcome=joined(verdicts),
        verdicts=verdicts,
        signature=signature,
        rows=400,
        details=details,
        versions={"onnx": "1"},
    )


def test_a_full_report_stands_on_the_page() -> None:
    page = Page(render_html(report(), title="churn 5", facts={"digest": "ab12"}))
    assert page.open == []
    for said in (
        "churn 5", "digest ab12", "accuracy 0.79 is below 0.85", "0.747 to 0.829", "1,234,567", "[any, 30]", "tango",
        "the output 'p' is gone",
        "12.35 MB", "37 slices were tested", "refuses with an error", "1.0e-07", "m 0.81 (201)",
        "This version is not rolled out. What failed: accuracy, noninferiority. Worth a look: claims.",
    ):  # fmt: skip
        assert said in page.text, said
    assert {"metrics", "confusion", "calibration", "comparison", "slices", "fairness", "drift", "latency"} <= page.ids


def test_what_came_from_outside_cannot_act() -> None:
    page = Page(render_html(report(), title=HOSTILE, facts={HOSTILE: HOSTILE}))
    assert page.tags & {"script", "img", "iframe", "link", "object", "style"} == {"style"}
    assert page.handlers == []
    assert all(link.startswith("#") for link in page.links)
    assert "{{ 7*7 }}" in page.text
    assert "49}" not in page.text


def test_evidence_links_lead_to_a_section_that_is_there() -> None:
    page = Page(render_html(report(), title="churn 5"))
    assert page.links == {"#metrics", "#comparison", "#drift"}
    assert {link.removeprefix("#") for link in page.links} <= page.ids


@pytest.mark.parametrize("outcome", Outcome)
def test_a_report_without_figures_makes_a_page(outcome: Outcome) -> None:
    verdicts = (Verdict(check="load", outcome=outcome, sentence="so it went"),)
    bare = ValidationReport(outcome=outcome, verdicts=verdicts)
    page = Page(render_html(bare, title="churn 5"))
    assert "so it went" in page.text
    assert page.ids == set()


def test_a_plot_places_values_by_their_size() -> None:
    rows = [Estimate(label="a", value=0.25), Estimate(label="b", value=0.75)]
    circles = [part for part in ranges(rows, title="t", low=0.0, high=1.0).split("<") if part.startswith("circle")]
    first, second = (float(part.split('cx="')[1].split('"')[0]) for part in circles)
    assert second - first == pytest.approx(180)


@pytest.mark.parametrize(
    "plot",
    [
        ranges([], title="empty"),
        ranges([Estimate(label="x", value=0.0)], title="nothing"),
        ranges([Estimate(label="x", value=5.0, interval=(5.0, 5.0), limit=5.0)], title="a point", low=0.0, high=1.0),
        shares([], [], [], title="empty"),
        shares(["a"], [0.0], [0.0], title="zeros"),
        curve([], title="empty"),
    ],
)
def test_a_plot_of_little_is_still_a_plot(plot: str) -> None:
    assert re.search(r'="-?(nan|inf)', plot) is None
    assert Page(plot).open == []
