"""What keeps the local host from starting: each is an error naming what is at fault, and nothing is left running."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from local.host.errors import HostStartError
from local.host.hostjson import read_host_json
from local.host.settings import AppSettings, HostSettings, connection_string

_HEAD = "import azure.functions as func\nimport logging\napp = func.FunctionApp()\n"
_HOST_JSON = '{"version": "2.0"}'
_CLOSED = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;BlobEndpoint=http://127.0.0.1:9/a;QueueEndpoint=http://127.0.0.1:9/a;"


def _start(directory: Path, app: str | None, host_json: str = _HOST_JSON, *options: str, **settings: str) -> str:
    """Start a host that cannot start; what it said. Its exit code must be 1."""
    app_dir = directory / "app"
    app_dir.mkdir()
    (app_dir / "host.json").write_text(host_json)
    if app is not None:
        (app_dir / "function_app.py").write_text(app)
    ended = subprocess.run(
        [sys.executable, "-m", "local.host", "--app-dir", str(app_dir), "--port", "0", *options],
        env={**os.environ, "AzureWebJobsStorage": _CLOSED, **settings},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    return ended.stderr


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            ('@app.route(route="a")\ndef good(req): ...\n'
            '@app.queue_trigger(arg_name="msg", queue_name="work", connection="X")\ndef bad(message): ...\n'),
            ["function 'bad' does not index", "message"],
        ),
        (
            ('from __future__ import annotations\nimport azure.functions as func\napp = func.FunctionApp()\n'
            '@app.route(route="a")\ndef good(req: func.HttpRequest): ...\n'
            '@app.route(route="b")\ndef bad(req: Nonsense): ...\n'
            '@app.route(route="c")\ndef worse(req: func.Nothing): ...\n'),
            ["function 'bad' does not index", "'Nonsense' is not defined", "function 'worse' does not index"],
        ),
        (
            '@app.route(route="a")\ndef twice(req): ...\n@app.route(route="b")\ndef twice(req): ...\n',
            ["twice does not have a unique"],
        ),
        (
            '@app.route(route="a")\ndef same(req): ...\n@app.route(route="b")\ndef Same(req): ...\n',
            ["'Same'", "differs from 'same' in case alone"],
        ),
        ("import nothing_of_this_name\n", ["does not load", "nothing_of_this_name"]),
        ("def broken(:\n", ["does not load", "SyntaxError"]),
        ("", ["declares no function"]),
        (
            ('@app.cosmos_db_trigger(arg_name="d", container_name="c", database_name="d", connection="X")\n'
            "def follows(d: func.DocumentList): ...\n"),
            ["function 'follows'", "cosmosDBTrigger"],
        ),
        (
            ('@app.route(route="a")\n@app.blob_input(arg_name="extra", path="a/b", connection="X")\n'
            "def reads(req: func.HttpRequest, extra: str): ...\n"),
            ["function 'reads'", "input binding 'extra'"],
        ),
        (
            '@app.schedule(arg_name="t", schedule="%NoSuchSetting%")\ndef ticks(t: func.TimerRequest): ...\n',
            ["function 'ticks'", "setting NoSuchSetting"],
        ),
        (
            '@app.schedule(arg_name="t", schedule="every minute")\ndef ticks(t: func.TimerRequest): ...\n',
            ["function 'ticks'", "six fields"],
        ),
        (
            '@app.queue_trigger(arg_name="m", queue_name="work", connection="NoSuch")\ndef works(m): ...\n',
            ["function 'works'", "connection NoSuch is not set"],
        ),
        (
            '@app.queue_trigger(arg_name="m", queue_name="Bad_Name", connection="X")\ndef works(m): ...\n',
            ["function 'works'", "'Bad_Name'"],
        ),
    ],
)  # fmt: skip
def test_an_app_at_fault_is_named_with_the_reason(tmp_path: Path, source: str, told: list[str]) -> None:
    said = _start(tmp_path, source if "FunctionApp" in source else _HEAD + source)
    for part in told:
        assert part in said.replace("\n", " ")


def test_a_directory_without_an_app_is_an_error(tmp_path: Path) -> None:
    assert "function_app.py does not exist" in _start(tmp_path, None)


def test_a_storage_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    said = _start(tmp_path, _HEAD + '@app.route(route="a")\ndef good(req): ...\n')
    assert "AzureWebJobsStorage" in said
    assert "does not answer" in said


def test_a_port_in_use_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = _start(tmp_path, _HEAD + '@app.route(route="a")\ndef good(req): ...\n', _HOST_JSON, "--port", port)
    assert f"port {port} of 127.0.0.1 cannot be had" in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", 'with "version": "2.0"'),
        ('{"version": "1.0"}', 'with "version": "2.0"'),
        ('{"version": "2.0", "extensions": []}', "extensions"),
        ('{"version": "2.0", "extensions": {"queues": {"batchSize": 33}}}', "batchSize is 33"),
        ('{"version": "2.0", "extensions": {"queues": {"batchSize": true}}}', "batchSize is True"),
        ('{"version": "2.0", "extensions": {"queues": {"maxPollingInterval": "5s"}}}', "maxPollingInterval is '5s'"),
        ('{"version": "2.0", "extensions": {"queues": {"messageEncoding": "hex"}}}', "base64 or none"),
        ('{"version": "2.0", "extensions": {"http": {"routePrefix": 1}}}', "routePrefix is 1"),
        ('{"version": "2.0", "functionTimeout": "00:00:00"}', "functionTimeout"),
    ],
)
def test_a_host_json_at_fault_is_an_error_naming_the_value(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "host.json").write_text(text)
    with pytest.raises(HostStartError, match=r"host\.json") as raised:
        read_host_json(tmp_path, {})
    assert told in str(raised.value)


def test_an_absent_host_json_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HostStartError, match=r"host\.json does not exist"):
        read_host_json(tmp_path, {})


def test_host_json_has_azure_s_defaults_and_leaves_unknown_sections_alone(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text(
        '{"version": "2.0", "telemetryMode": "OpenTelemetry", "extensions": {"new": 1}}'
    )
    found = read_host_json(tmp_path, {})
    assert found.route_prefix == "api"
    assert found.function_timeout_s == 1800
    assert (found.queues.batch_size, found.queues.max_dequeue_count, found.queues.poll_cap_s) == (16, 5, 60)
    assert (found.queues.retry_delay_s, found.queues.base64) == (0, True)
    assert found.blobs.poison_blob_threshold == 5


def test_settings_override_host_json_whatever_their_case(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text(
        '{"version": "2.0", "functionTimeout": "1.02:03:04.5", "extensions": {"queues": {"batchSize": 2}}}'
    )
    assert read_host_json(tmp_path, {}).function_timeout_s == 86_400 + 2 * 3600 + 3 * 60 + 4.5
    found = read_host_json(
        tmp_path,
        {
            "AzureFunctionsJobHost__functionTimeout": "-1",
            "AzureFunctionsJobHost__Extensions__Queues__BatchSize": "7",
            "AzureFunctionsJobHost__extensions__http__routePrefix": "",
        },
    )
    assert (found.function_timeout_s, found.queues.batch_size, found.route_prefix) == (None, 7, "")


def test_the_host_s_settings_have_azure_s_defaults(tmp_path: Path) -> None:
    found = HostSettings.from_env({"AzureWebJobsStorage": _CLOSED}, tmp_path)
    assert (found.blob_scan_s, found.message_lease_s) == (10, 600)
    assert HostSettings.from_env({"AzureWebJobsStorage": _CLOSED}, tmp_path) == found
    elsewhere = HostSettings.from_env({"AzureWebJobsStorage": _CLOSED}, tmp_path / "other")
    assert elsewhere.host_id != found.host_id
    assert len(found.host_id) == 32


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLIPWAY_HOST_BLOB_SCAN_S", "soon"),
        ("SLIPWAY_HOST_MESSAGE_LEASE_S", "0"),
        ("SLIPWAY_HOST_GRACE_S", "-1"),
        ("SLIPWAY_HOST_TIMER_LEASE_S", "nan"),
        ("AzureFunctionsWebHost__hostid", "Upper"),
        ("AzureFunctionsWebHost__hostid", "x" * 33),
    ],
)
def test_a_setting_at_fault_is_an_error_naming_it(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(HostStartError, match=name):
        HostSettings.from_env({"AzureWebJobsStorage": _CLOSED, name: value}, tmp_path)


def test_connections_are_connection_strings() -> None:
    assert connection_string({"X": _CLOSED}, "X") == _CLOSED
    assert "127.0.0.1:10001" in connection_string({"X": "UseDevelopmentStorage=true;"}, "X")
    with pytest.raises(HostStartError, match="managed identity"):
        connection_string({"X__accountName": "a"}, "X")
    with pytest.raises(HostStartError, match="no AccountName"):
        connection_string({"X": "nonsense"}, "X")


def test_percent_settings_are_filled_in() -> None:
    settings = AppSettings({"Queue": "work", "Empty": ""})
    assert settings.resolve("a-%Queue%-%Queue%", function="f") == "a-work-work"
    with pytest.raises(HostStartError, match=r"function 'f'.*setting Empty"):
        settings.resolve("%Empty%", function="f")
