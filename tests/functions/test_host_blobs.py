"""Blob triggers of the local host, over a real Azurite: receipts, messages, poison, two hosts."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from local.host.blobs import POISON_QUEUE, PathPattern, trigger_queue
from local.host.errors import HostStartError
from local.host.receipts import Receipt, Taken
from tests.functions.host_case import HOST_ID, SampleCase, sample_case
from tests.support.waiting import eventually

_FUNCTION = "Host.Functions.arrived"


@pytest.fixture
def case(storage: str, tmp_path: Path) -> Iterator[SampleCase]:
    yield from sample_case(storage, tmp_path)


def _receipt(case: SampleCase, etag: str, blob: str) -> Receipt:
    return Receipt(
        case.blobs, host_id=HOST_ID, function=_FUNCTION, etag=etag.strip('"'), container="incoming", blob=blob
    )


def _receipts(blobs: BlobServiceClient) -> dict[str, dict[str, str]]:
    container = blobs.get_container_client("azure-webjobs-hosts")
    listed = container.list_blobs(name_starts_with="blobreceipts/", include=["metadata"])
    return {str(blob.name): dict(blob.metadata or {}) for blob in listed}


def test_a_client_parameter_gets_the_blob_whatever_its_name(case: SampleCase) -> None:
    names = ["plain.onnx", "iris/v1/model.onnx", "a b+c%20&ü#.txt"]
    case.start_host()
    etags = [case.upload("incoming", name, name) for name in names]
    notes = case.wait_for("arrived", 3)
    assert sorted(note["name"] for note in notes) == sorted(names)
    assert all(note["text"] == note["name"] and note["container"] == "incoming" for note in notes)
    eventually(lambda: not any(_receipts(case.blobs).values()), what="every receipt complete")
    wanted = {
        f"blobreceipts/{HOST_ID}/{_FUNCTION}/{etag.strip(chr(34))}/incoming/{name}"
        for etag, name in zip(etags, names, strict=True)
    }
    assert set(_receipts(case.blobs)) == wanted


def test_a_stream_parameter_gets_bytes_and_metadata_of_matching_blobs(case: SampleCase) -> None:
    case.upload("texts", "no-folder.txt", "not matched")
    case.upload("texts", "x/y/z.txt", "hello", metadata={"k": "v"})
    case.start_host()
    (note,) = case.wait_for("text")
    assert (note["name"], note["text"], note["length"]) == ("texts/x/y/z.txt", "hello", 5)
    assert note["metadata"] == {"k": "v"}
    assert note["uri"].endswith("/texts/x/y/z.txt")


def test_each_state_of_a_blob_is_told_of_once_also_after_a_restart(case: SampleCase) -> None:
    case.upload("incoming", "model", "first")
    host = case.start_host()
    case.wait_for("arrived", 1)
    case.upload("incoming", "model", "second")
    case.wait_for("arrived", 2)
    eventually(lambda: case.is_empty(trigger_queue(HOST_ID)), what="every message settled")
    assert host.child.stop() == 0
    case.start_host("second")
    case.upload("incoming", "other", "third")
    notes = case.wait_for("arrived", 3)
    assert [note["text"] for note in notes] == ["first", "second", "third"]


def test_a_blob_whose_function_fails_ends_as_poison_and_the_rest_go_on(case: SampleCase) -> None:
    case.start_host()
    etag = case.upload("incoming", "bad", "fail")
    (poison,) = eventually(lambda: case.messages(POISON_QUEUE), what="a poison message")
    assert json.loads(poison) == {
        "Type": "BlobTrigger",
        "FunctionId": _FUNCTION,
        "BlobType": "BlockBlob",
        "ContainerName": "incoming",
        "BlobName": "bad",
        "ETag": etag,
    }
    assert len(case.seen("arrived")) == 2
    case.upload("incoming", "good", "fine")
    assert case.wait_for("arrived", 3)[-1]["text"] == "fine"


def test_two_hosts_tell_of_each_blob_once(case: SampleCase) -> None:
    case.start_host("first")
    case.start_host("second")
    for number in range(15):
        case.upload("incoming", f"blob-{number}", "x")
    notes = case.wait_for("arrived", 15)
    eventually(lambda: case.is_empty(trigger_queue(HOST_ID)), what="every message settled")
    assert len(case.seen("arrived")) == len({note["name"] for note in notes}) == 15


def test_a_receipt_whose_host_died_before_the_message_is_taken_up(case: SampleCase) -> None:
    etag = case.upload("incoming", "orphan", "x")
    case.blobs.create_container("azure-webjobs-hosts")
    assert _receipt(case, etag, "orphan").take(30.0) is Taken.OURS  # and then its host was killed
    case.start_host(SLIPWAY_HOST_BLOB_RECEIPT_S="1")
    assert case.wait_for("arrived")[0]["name"] == "orphan"


def test_a_receipt_has_one_holder_at_a_time(case: SampleCase) -> None:
    case.blobs.create_container("azure-webjobs-hosts")
    assert _receipt(case, "0x1", "b").take(30.0) is Taken.OURS
    assert _receipt(case, "0x1", "b").take(30.0) is Taken.IN_WORK
    assert _receipt(case, "0x1", "b").take(-5.0) is Taken.OURS
    _receipt(case, "0x1", "b").complete()
    assert _receipt(case, "0x1", "b").take(-5.0) is Taken.DONE
    assert _receipt(case, "0x2", "b").take(30.0) is Taken.OURS


def test_a_receipt_stands_for_a_name_of_any_length(case: SampleCase) -> None:
    case.blobs.create_container("azure-webjobs-hosts")
    assert _receipt(case, "0x1", "n" * 1024).take(30.0) is Taken.OURS
    assert _receipt(case, "0x1", "n" * 1024).take(30.0) is Taken.IN_WORK
    assert _receipt(case, "0x1", "n" * 1023 + "m").take(30.0) is Taken.OURS


def test_a_message_for_a_state_that_is_past_calls_nothing(case: SampleCase) -> None:
    etag = case.upload("incoming", "model", "now")
    case.blobs.create_container("azure-webjobs-hosts")
    receipt = _receipt(case, etag, "model")
    assert receipt.take(30.0) is Taken.OURS
    receipt.complete()
    queue = case.queue(trigger_queue(HOST_ID))
    stale = {"Type": "BlobTrigger", "FunctionId": _FUNCTION, "ContainerName": "incoming"}
    for change in (
        {"BlobName": "model", "ETag": '"0xOLD"'},
        {"BlobName": "gone", "ETag": etag},
        {"BlobName": "model", "ETag": etag, "FunctionId": "Host.Functions.removed"},
    ):
        queue.send_message(base64.b64encode(json.dumps(stale | change).encode()).decode())
    queue.send_message(
        base64.b64encode(b'{"FunctionId": "Host.Functions.removed", "BlobName": "a", "ETag": "b"}').decode()
    )
    case.start_host()
    eventually(lambda: case.is_empty(trigger_queue(HOST_ID)), what="every message settled")
    assert case.seen("arrived") == []


@pytest.mark.parametrize(
    ("path", "blob", "parameters"),
    [
        ("incoming", "any/thing", {}),
        ("incoming/{name}", "a/b/c.onnx", {"name": "a/b/c.onnx"}),
        ("incoming/{model}/{file}.onnx", "iris/m.onnx", {"model": "iris", "file": "m"}),
        ("incoming/in.{ext}", "in.txt", {"ext": "txt"}),
        ("incoming/in.{ext}", "inatxt", None),
        ("incoming/{model}/m", "m", None),
    ],
)
def test_paths_match(path: str, blob: str, parameters: dict[str, str] | None) -> None:
    assert PathPattern.parse(path, "f").match(blob) == parameters


@pytest.mark.parametrize("path", ["", "/x", "{c}/x", "UPPER/x", "incoming/{a}{", "incoming/{a}/{a}", "incoming/{1}"])
def test_a_path_that_cannot_be_followed_is_an_error_naming_the_function(path: str) -> None:
    with pytest.raises(HostStartError, match="function 'f'"):
        PathPattern.parse(path, "f")
