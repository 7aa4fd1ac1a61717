"""Drops of several files through the real sandbox: its walls let every library do its work, and no more."""

import io
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from pyarrow import csv

from shared.registry.policy import SigningPolicy, ValidationPolicy
from shared.validation.process import SandboxLimits
from shared.validation.sandbox import Intake, ModelFiles, read_manifest, run_intake, run_validation
from tests.unit.signing.made import digest, private_key, public_key, signed
from tests.unit.validation.drops import bundle, scorer_rows
from tests.unit.validation.forms import listed, outside_files

TRUSTED = SigningPolicy(required=True, trusted_keys=(public_key(private_key()).pem,))


def signed_drop(name: str = "rows.parquet") -> dict[str, bytes]:
    """A signed model with its weights outside, and its data as a table."""
    rows = scorer_rows(50)
    table = pa.table({**{name: rows["x"][:, i] for i, name in enumerate("abc")}, "label": rows["label"]})
    buffer = io.BytesIO()
    (pq.write_table if name.endswith(".parquet") else csv.write_csv)(table, buffer)
    files = {other: content for other, content in outside_files().items() if other != "data/rows.npz"}
    files = listed({**files, name: buffer.getvalue()}, validation=name, feature_names=list("abc"))
    return files | {"model.sig": signed({other: digest(content) for other, content in files.items()})}


def taken(place: Path, files: dict[str, bytes], *, zipped: bool) -> Intake:
    (place / "work").mkdir()
    if zipped:
        (place / "drop").write_bytes(bundle(files))
        dropped: Path | dict[str, Path] = place / "drop"
    else:
        dropped = {name: place / f"blob-{number}" for number, name in enumerate(files)}
        for name, path in dropped.items():
            path.write_bytes(files[name])
    return run_intake(dropped, filename="drop.zip", workdir=place / "work", limits=SandboxLimits(), signing=TRUSTED)


def assert_taken(intake: Intake, files: dict[str, bytes]) -> None:
    assert intake.signed_by == public_key(private_key()).fingerprint
    assert intake.validation is not None
    assert intake.signing is not None
    assert {name: part.digest for name, part in intake.external.items()} == {
        "weights.bin": digest(files["weights.bin"])
    }
    assert intake.validation.digest == digest(files[intake.manifest.validation or ""])
    assert intake.signing.digest == digest(files["model.sig"])


def test_a_signed_bundle_of_several_files_is_taken_in(tmp_path: Path) -> None:
    files = signed_drop("rows.csv")
    assert_taken(taken(tmp_path, files, zipped=True), files)


def test_a_signed_folder_is_taken_in_and_measured_on_its_table(tmp_path: Path) -> None:
    files = signed_drop()
    (tmp_path / "m").write_bytes(files["slipway.yaml"])
    (tmp_path / "first").mkdir()
    manifest = read_manifest(tmp_path / "m", workdir=tmp_path / "first", limits=SandboxLimits())
    assert manifest.files.keys() == files.keys() - {"slipway.yaml", "model.sig"}
    intake = taken(tmp_path, files, zipped=False)
    assert_taken(intake, files)
    assert intake.validation is not None
    (tmp_path / "second").mkdir()
    report = run_validation(
        model=ModelFiles(
            path=intake.model.path,
            name=intake.model_file,
            external={name: part.path for name, part in intake.external.items()},
        ),
        validation=intake.validation.path,
        reference=None,
        manifest=intake.manifest,
        policy=ValidationPolicy(),
        workdir=tmp_path / "second",
        limits=SandboxLimits(),
    ).report
    assert report.rows == 50
    assert report.metrics["accuracy"] == 1.0
