"""`slipway validate`: the checks of a push on this machine, with the report, in the real sandbox."""

import json
from pathlib import Path

import pytest

from cli.main import run
from cli.outcome import ExitCode
from tests.support.models import bundle, classifier

GOOD, BAD = 1.0, 1e-6


@pytest.fixture(scope="module")
def drops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good bundle, a bad one, one that is cut short, and a policy that forgives little data."""
    folder = tmp_path_factory.mktemp("drops")
    good = bundle(classifier(c=GOOD))
    (folder / "good.zip").write_bytes(good)
    (folder / "bad.zip").write_bytes(bundle(classifier(c=BAD)))
    (folder / "cut.zip").write_bytes(good[: len(good) // 2])
    (folder / "policy.json").write_text('{"validation": {"noninferiority_margin": 0.3}}')
    return folder


def test_a_good_model_is_accepted_and_its_report_written(
    drops: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page, data = tmp_path / "report.html", tmp_path / "report.json"
    assert run(["validate", str(drops / "good.zip"), "--report", str(page), "--report", str(data)]) == ExitCode.OK
    shown = capfd.readouterr()
    assert "a version like this would be validated" in shown.out
    assert "running the model" in shown.err
    report = json.loads(data.read_text())
    assert report["outcome"] == "pass"
    assert "<h1>good.zip</h1>" in page.read_text()
    assert all(verdict["check"] in page.read_text() for verdict in report["verdicts"])


def test_a_bad_model_is_rejected_for_what_it_is_bad_at(drops: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(drops / "bad.zip")]) == ExitCode.FAILED
    assert "(advice)" in capsys.readouterr().out
    assert run(["validate", str(drops / "bad.zip"), "--json"]) == ExitCode.FAILED
    value = json.loads(capsys.readouterr().out)
    assert (value["accepted"], value["refusal"]) == (False, None)
    failed = {verdict["check"] for verdict in value["report"]["verdicts"] if verdict["outcome"] == "fail"}
    assert "accuracy" in failed


def test_a_champion_is_compared_with(drops: Path, capsys: pytest.CaptureFixture[str]) -> None:
    champion = ["--champion", str(drops / "good.zip"), "--policy", str(drops / "policy.json")]
    assert run(["validate", str(drops / "good.zip"), *champion, "--json"]) == ExitCode.OK
    report = json.loads(capsys.readouterr().out)["report"]
    (comparison,) = report["details"]["comparison"]
    assert comparison["difference"] == 0.0


def test_a_champion_is_read_by_its_own_manifest(drops: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = "task: regression\nvalidation: validation.npz\n"
    (drops / "other.zip").write_bytes(bundle(classifier(c=GOOD), manifest=other))
    run(["validate", str(drops / "good.zip"), "--champion", str(drops / "other.zip"), "--json"])
    verdicts = json.loads(capsys.readouterr().out)["report"]["verdicts"]
    (compared,) = (verdict for verdict in verdicts if verdict["check"] == "non_inferiority")
    assert "does regression, and this version classification" in compared["sentence"]


def test_a_damaged_drop_is_refused_with_its_code(drops: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(drops / "cut.zip"), "--json"]) == ExitCode.FAILED
    value = json.loads(capsys.readouterr().out)
    assert value["refusal"]["code"] == "not_zip"
    assert value["report"] is None


def test_a_refusal_takes_the_place_of_an_older_report(drops: Path, tmp_path: Path) -> None:
    page, data = tmp_path / "report.html", tmp_path / "report.json"
    for older in (page, data):
        older.write_text("accepted")
    name = tmp_path / "<b>.zip"
    name.write_bytes((drops / "cut.zip").read_bytes())
    assert run(["validate", str(name), "--report", str(page), "--report", str(data)]) == ExitCode.FAILED
    assert json.loads(data.read_text())["refusal"]["code"] == "not_zip"
    assert "The drop was refused, and nothing was validated" in page.read_text()
    assert "<h1>&lt;b&gt;.zip</h1>" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.onnx"], "is no file and no folder"),
        (["good.zip", "--report", "report.pdf"], "neither .html nor .json"),
        (["good.zip", "--champion", "cut.zip"], "the champion"),
    ],
)
def test_what_cannot_be_used_is_an_error_of_usage(
    drops: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    full = [str(drops / argument) if argument.endswith((".zip", ".onnx")) else argument for argument in arguments]
    assert run(["validate", *full]) == ExitCode.USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text"),
    [("policy.json", '{"validation": {"accuracy": 2}}'), ("policy.yaml", "validation:\n  accuracy: 2\n")],
)
def test_a_policy_that_cannot_be_is_named(
    drops: Path, tmp_path: Path, name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    assert run(["validate", str(drops / "good.zip"), "--policy", str(tmp_path / name)]) == ExitCode.USAGE
    assert "validation.accuracy" in capsys.readouterr().err
