"""The demo's models are what its story says of them, measured by the system's own sandbox."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from local.demo.digits import BRIGHTEST, NEW_SCANNER_BRIGHTEST, Pixels, Rows, newly_scanned
from local.demo.story import POLICY
from local.demo.training import INPUT, TRAFFIC_FILE, Entry
from local.system import REPOSITORY
from shared.core.verdict import Outcome
from shared.validation.report import ValidationReport
from shared.validation.sandbox import Intake, ModelFiles, SandboxLimits, run_intake, run_validation


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with everything that the training process makes."""
    directory = tmp_path_factory.mktemp("workshop")
    subprocess.run(
        [sys.executable, "-m", "local.demo.training", str(directory)], cwd=REPOSITORY, check=True, capture_output=True
    )
    return directory


@pytest.fixture(scope="module")
def traffic(workshop: Path) -> Rows:
    return Rows.load(workshop / TRAFFIC_FILE)


CHAMPIONS = {Entry.FIRST: None, Entry.BETTER: Entry.FIRST, Entry.WORSE: Entry.BETTER, Entry.FAULTY: Entry.BETTER}
"""What each model meets as the champion in the demo's story."""


@pytest.fixture(scope="module")
def reports(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Entry, ValidationReport]:
    """What the sandbox says of each model under the demo's policy."""
    taken = {entry: _taken(workshop / entry.filename, tmp_path_factory.mktemp("parts")) for entry in Entry}
    return {
        entry: _report(taken[entry], taken[champion] if champion else None, tmp_path_factory.mktemp("sandbox"))
        for entry, champion in CHAMPIONS.items()
    }


def _taken(bundle: Path, parts: Path) -> Intake:
    return run_intake(bundle, filename=bundle.name, workdir=parts, limits=SandboxLimits())


def _report(intake: Intake, champion: Intake | None, work: Path) -> ValidationReport:
    assert intake.validation is not None
    assert intake.reference is not None
    return run_validation(
        model=ModelFiles(path=intake.model.path),
        validation=intake.validation.path,
        reference=intake.reference.path,
        manifest=intake.manifest,
        policy=POLICY.validation,
        workdir=work,
        limits=SandboxLimits(),
        champion=ModelFiles(path=champion.model.path) if champion else None,
        champion_version=1 if champion else None,
    ).report


def _labels(bundle: Path, pixels: Pixels) -> list[int]:
    with zipfile.ZipFile(bundle) as archive:
        session = onnxruntime.InferenceSession(archive.read("model.onnx"), providers=["CPUExecutionProvider"])
    labels: list[int] = session.run(["label"], {INPUT: pixels})[0].tolist()
    return labels


@pytest.mark.parametrize("entry", list(Entry))
def test_a_bundle_is_whole_and_no_row_serves_two_purposes(entry: Entry, traffic: Rows, workshop: Path) -> None:
    with zipfile.ZipFile(workshop / entry.filename) as archive:
        assert sorted(archive.namelist()) == ["model.onnx", "reference.npz", "slipway.yaml", "validation.npz"]
        validation = np.load(io.BytesIO(archive.read("validation.npz")))
        # What a model was trained on is what it holds to be usual.
        training = np.load(io.BytesIO(archive.read("reference.npz")))
    parts = [training[INPUT], validation[INPUT], traffic.pixels]
    assert [len(part) for part in parts] == [900, 450, 447]
    rows = [{row.tobytes() for row in part} for part in parts]
    assert sum(map(len, rows)) == len(set().union(*rows)) == 1_797
    assert set(validation["digit"].tolist()) == set(traffic.labels.tolist()) == set(range(10))


def test_validation_passes_all_but_the_worse_model(reports: dict[Entry, ValidationReport]) -> None:
    assert {entry: report.outcome for entry, report in reports.items()} == {
        Entry.FIRST: Outcome.PASS,
        Entry.BETTER: Outcome.PASS,
        Entry.WORSE: Outcome.FAIL,
        Entry.FAULTY: Outcome.PASS,
    }
    verdicts = reports[Entry.WORSE].verdicts
    failed = {verdict.check for verdict in verdicts if verdict.outcome is Outcome.FAIL and not verdict.advisory}
    assert failed == {"accuracy", "precision", "recall", "non_inferiority"}


def test_the_better_model_measures_better(reports: dict[Entry, ValidationReport]) -> None:
    assert reports[Entry.BETTER].metrics["accuracy"] > reports[Entry.FIRST].metrics["accuracy"]


def test_a_new_scanner_changes_the_brightest_pixels_and_nothing_else(traffic: Rows) -> None:
    before, after = traffic.pixels, newly_scanned(traffic.pixels)
    assert before.max() == BRIGHTEST
    assert np.array_equal(after != before, before == BRIGHTEST)
    assert set(after[after != before].tolist()) == {NEW_SCANNER_BRIGHTEST}
    assert after.dtype == before.dtype


@pytest.mark.parametrize("entry", [Entry.FIRST, Entry.BETTER])
def test_a_sound_model_reads_the_new_scanner_as_well_as_the_old(entry: Entry, traffic: Rows, workshop: Path) -> None:
    pixels = traffic.pixels
    assert _labels(workshop / entry.filename, newly_scanned(pixels)) == _labels(workshop / entry.filename, pixels)


def test_the_faulty_model_errs_on_brighter_images_alone(traffic: Rows, workshop: Path) -> None:
    bundle, pixels = workshop / Entry.FAULTY.filename, traffic.pixels
    right = np.mean(np.array(_labels(bundle, pixels)) == traffic.labels)
    assert right > 0.9
    brightest = pixels[pixels.max(axis=1) == BRIGHTEST]
    with pytest.raises(Exception, match="out of data bounds"):
        _labels(bundle, newly_scanned(brightest[:1]))
