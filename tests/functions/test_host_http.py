"""HTTP through the local host: routing, levels, and what reaches a function and comes back."""

import contextlib
import http.client
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.host.errors import HostStartError
from local.host.http import MAX_BODY_BYTES
from local.host.keys import load_keys
from local.host.routes import Route, decoded_path
from tests.functions.host_case import HOST_ID, sample_case
from tests.support.host import HostProcess
from tests.support.plain import NO_TLS


@pytest.fixture(scope="module")
def host(module_storage: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    for case in sample_case(module_storage, tmp_path_factory.mktemp("http")):
        yield case.start_host()


@pytest.fixture
def client(host: HostProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=host.url, timeout=30.0, verify=NO_TLS) as client:
        yield client


def _open(client: httpx.Client, **request: Any) -> dict[str, Any]:
    answer = client.get("/api/open/joe", **request)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/api/open/joe", "none", 200),
        ("/api/open/joe", "wrong", 200),
        ("/api/items/5", "none", 401),
        ("/api/items/5", "wrong", 401),
        ("/api/items/5", "host", 200),
        ("/api/items/5", "master", 200),
        ("/api/files/a", "none", 401),
        ("/api/files/a", "host", 401),
        ("/api/files/a", "master", 200),
        ("/admin/host/status", "none", 401),
        ("/admin/host/status", "host", 401),
        ("/admin/host/status", "master", 200),
    ],
)
@pytest.mark.parametrize("place", ["header", "query"])
def test_a_level_opens_to_its_keys_alone(
    host: HostProcess, client: httpx.Client, path: str, key: str, status: int, place: str
) -> None:
    text = {"none": "", "wrong": "wrong", "host": host.key, "master": host.master_key}[key]
    if place == "header":
        answer = client.get(path, headers={"x-functions-key": text} if text else {})
    else:
        answer = client.get(path, params={"code": text} if text else {})
    assert answer.status_code == status


def test_a_wrong_key_in_the_header_is_not_saved_by_the_right_one_in_the_query(
    host: HostProcess, client: httpx.Client
) -> None:
    assert client.get("/api/items/5", params={"code": host.key}, headers={"x-functions-key": "no"}).status_code == 401


def test_the_status_names_the_host(host: HostProcess, client: httpx.Client) -> None:
    answer = client.get("/admin/host/status", headers={"x-functions-key": host.master_key})
    assert answer.json() == {"id": HOST_ID, "state": "Running"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/nowhere"),
        ("GET", "/open/joe"),
        ("GET", "/"),
        ("DELETE", "/api/open/joe"),
        ("HEAD", "/api/open/joe"),
        ("GET", "/api/open/joe5"),
        ("GET", "/api/open/joe/more"),
    ],
)
def test_no_route_for_path_and_method_is_404(client: httpx.Client, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/items/5", "number 5"),
        ("/api/items/five", "name five"),
        ("/api/items/special", "special GET"),
        ("/API/Items/Special/", "special GET"),
        ("/api/items/a%20b", "name a b"),
        ("/api/items/a%2Fb", "name a%2Fb"),
    ],
)
def test_the_most_literal_route_wins(host: HostProcess, client: httpx.Client, path: str, body: str) -> None:
    answer = client.get(path, headers=host.headers)
    assert (answer.status_code, answer.text) == (200, body)


@pytest.mark.parametrize(
    ("path", "body"),
    [("/api/files", "rest "), ("/api/files/a", "rest a"), ("/api/files/a/b/c.txt", "rest a/b/c.txt")],
)
def test_a_catch_all_takes_the_rest(host: HostProcess, client: httpx.Client, path: str, body: str) -> None:
    answer = client.get(path, headers={"x-functions-key": host.master_key})
    assert (answer.status_code, answer.text) == (200, body)


def test_an_absent_optional_parameter_is_left_out(client: httpx.Client) -> None:
    assert client.get("/api/open").json()["route"] == {}
    assert client.get("/api/open/joe").json()["route"] == {"name": "joe"}


def test_the_request_arrives_whole(client: httpx.Client) -> None:
    answer = client.post(
        "/api/open/joe",
        params=[("a", "1"), ("a", "2"), ("empty", "")],
        headers=[("x-two", "1"), ("x-two", "2")],
        content="böse".encode(),
    ).json()
    assert answer["method"] == "POST"
    assert answer["url"].endswith("/api/open/joe?a=1&a=2&empty=")
    assert answer["params"] == {"a": "1,2"}
    assert answer["headers"]["x-two"] == "1,2"
    assert (answer["length"], answer["body"]) == (5, "böse")


def test_the_answer_arrives_whole(client: httpx.Client) -> None:
    answer = client.get("/api/open/joe")
    assert answer.headers["x-answer"] == "yes"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["set-cookie"] == "crumb=1; Path=/; HttpOnly; SameSite=Lax"
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_a_client_cannot_claim_a_principal(client: httpx.Client) -> None:
    claimed = {"X-MS-CLIENT-PRINCIPAL": "eyJ9", "x-ms-client-principal-name": "root", "X-Ms-Client-Principal-Id": "0"}
    headers = _open(client, headers=claimed | {"x-kept": "yes"})["headers"]
    assert headers["x-kept"] == "yes"
    assert not [name for name in headers if "principal" in name.lower()]


def test_a_function_that_raises_answers_500_and_tells_nothing(host: HostProcess, client: httpx.Client) -> None:
    answer = client.get("/api/broken")
    assert (answer.status_code, answer.content) == (500, b"")
    assert "RuntimeError: a secret of GET" in host.log()


def test_a_function_cannot_end_the_host(client: httpx.Client) -> None:
    assert client.get("/api/exit").status_code == 500
    assert client.get("/api/open/joe").status_code == 200


def test_a_body_over_the_limit_is_413_by_its_declared_length(client: httpx.Client) -> None:
    with contextlib.closing(http.client.HTTPConnection(client.base_url.host, client.base_url.port or 0)) as raw:
        raw.putrequest("POST", "/api/open/joe")
        raw.putheader("content-length", str(MAX_BODY_BYTES + 1))
        raw.endheaders()
        with raw.getresponse() as answer:
            assert answer.status == 413


def test_a_body_over_the_limit_is_413_when_its_length_is_not_declared(client: httpx.Client) -> None:
    chunk = b"x" * (1024 * 1024)

    def endless() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // len(chunk) + 1):
            yield chunk

    try:
        status = client.post("/api/open/joe", content=endless()).status_code
    except (httpx.WriteError, httpx.RemoteProtocolError):
        status = 413  # closed on us while we still wrote, the answer lost on the way
    assert status == 413
    assert client.get("/api/open/joe").status_code == 200


def test_keys_are_made_once_and_are_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys.json"
    made = load_keys(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_keys(path) == made
    assert made.opens_function(made.functions["default"])
    assert not made.opens_admin(made.functions["default"])
    assert not made.opens_function(None)
    assert not made.opens_function("")
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"masterKey": "a"}', '{"masterKey": "", "functionKeys": {"default": "a"}}']
)
def test_a_keys_file_that_holds_no_keys_is_an_error_naming_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(HostStartError, match=r"keys\.json does not hold keys"):
        load_keys(path)


@pytest.mark.parametrize(
    ("template", "path", "params"),
    [
        ("", "", {}),
        ("{*all}", "", {}),
        ("{*all}", "a/b", {"all": "a/b"}),
        ("a/{id:guid}", "a/0f8fad5b-d9cb-469f-a165-70867728950e", {"id": "0f8fad5b-d9cb-469f-a165-70867728950e"}),
        ("a/{n:long}.json", "a/12.json", {"n": "12"}),
        ("v{major:int}-{minor:int}", "v1-2", {"major": "1", "minor": "2"}),
        ("a/{n:int?}", "a", {}),
    ],
)
def test_templates_match(template: str, path: str, params: dict[str, str]) -> None:
    assert Route.parse(template, frozenset(), function="f").match("GET", path) == params


@pytest.mark.parametrize(
    "template", ["{*all}/more", "{a?}/b", "{a", "a}", "{a:regex(x)}", "{a:money}", "{a=b}", "x{*y}"]
)
def test_a_template_that_cannot_be_followed_is_an_error_naming_the_function(template: str) -> None:
    with pytest.raises(HostStartError, match="function 'f'"):
        Route.parse(template, frozenset(), function="f")


def test_an_encoded_slash_separates_nothing() -> None:
    assert decoded_path(b"/a%2Fb/c%20d/") == "a%2Fb/c d"
