"""The token that the workflow `model` signs in with: GitHub's statement, exchanged at Entra, shown to the app."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import yaml

from tests.infra.bicep_duties import deployed, of_type, parameters_of
from tests.infra.test_bicep import FOLDER

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".github" / "scripts" / "token.sh"
EXCHANGE = {
    "grant_type": ["client_credentials"],
    "client_id": ["the-client"],
    "scope": ["api://app/.default"],
    "client_assertion_type": ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"],
    "client_assertion": ["the-statement"],
}


class Authorities:
    """GitHub's and Entra's ends: each answers who shows what it wants, and nobody else."""

    def __init__(self) -> None:
        self.url = ""
        self.given = 0

    def answer(self, method: str, path: str, authorization: str | None, body: str) -> object | None:
        """What to answer; None refuses."""
        if method == "GET" and path == "/statement?a=b&audience=api://AzureADTokenExchange":
            return {"value": "the-statement"} if authorization == "Bearer of-the-job" else None
        if method == "POST" and path == "/the-tenant/oauth2/v2.0/token" and parse_qs(body) == EXCHANGE:
            self.given += 1
            return {"token_type": "Bearer", "access_token": f"token-{self.given}"}
        return None


@contextmanager
def serving(authorities: Authorities) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
            found = authorities.answer(self.command, self.path, self.headers.get("authorization"), body)
            data = json.dumps(found).encode()
            self.send_response(200 if found else 401)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _handle  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        authorities.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def authorities() -> Iterator[Authorities]:
    found = Authorities()
    with serving(found):
        yield found


def run(authorities: Authorities, **changed: str) -> "subprocess.CompletedProcess[str]":
    given = {
        "PATH": os.environ["PATH"],
        "AZURE_CLIENT_ID": "the-client",
        "AZURE_TENANT_ID": "the-tenant",
        "SLIPWAY_AUDIENCE": "api://app",
        "AZURE_AUTHORITY_HOST": authorities.url,
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{authorities.url}/statement?a=b",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-job",
    }
    return subprocess.run([SCRIPT], env=given | changed, capture_output=True, text=True, timeout=60, check=False)


def test_each_run_of_the_script_prints_a_new_token_and_nothing_else(authorities: Authorities) -> None:
    assert [run(authorities).stdout for _ in range(2)] == ["token-1\n", "token-2\n"]


@pytest.mark.parametrize(
    "changed", [{"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "another"}, {"AZURE_CLIENT_ID": "another"}, {"SLIPWAY_AUDIENCE": ""}]
)
def test_where_one_of_them_refuses_it_fails_and_prints_nothing(
    authorities: Authorities, changed: dict[str, str]
) -> None:
    ended = run(authorities, **changed)
    assert (ended.returncode != 0, ended.stdout) == (True, "")


def test_the_workflow_gives_the_command_line_what_the_script_needs() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "model.yml").read_text())["jobs"]["drop"]
    assert job["permissions"]["id-token"] == "write"
    assert {"SLIPWAY_AUDIENCE", "AZURE_CLIENT_ID", "AZURE_TENANT_ID"} <= job["env"].keys()
    last = job["steps"][-1]["run"]
    assert "if [[ -n $SLIPWAY_AUDIENCE ]]; then export SLIPWAY_TOKEN_COMMAND=.github/scripts/token.sh; fi" in last


def test_the_package_holds_what_the_parameter_has_the_app_send_by() -> None:
    packaged = (ROOT / "requirements.txt").read_text()
    for environment in ("dev", "staging", "production"):
        made = list(deployed(FOLDER, parameters_of(FOLDER, environment)).resources())
        settings = [one.properties for one in of_type(made, "Microsoft.Web/sites/config") if one.name == "appsettings"]
        assert [one["SLIPWAY_TRACE_TO_INSIGHTS"].lower() for one in settings] == ["true"], environment
        assert "\nazure-monitor-opentelemetry-exporter==" in packaged
