"""A functions app for the tests of the local host: each function writes what it saw as a blob of `seen`.

The names of those blobs begin with the function's name, so that a test can list them; nothing here is ever overwritten.
"""

import json
import logging
import os
import time
import uuid
from typing import List  # noqa: UP035 - see `send`

import azure.functions as func
import azurefunctions.extensions.bindings.blob as sdk
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


def _note(kind: str, **seen: object) -> None:
    service = BlobServiceClient.from_connection_string(os.environ["SAMPLE_STORAGE"])
    try:
        service.create_container("seen")
    except ResourceExistsError:
        logging.getLogger("sample").debug("the container exists")
    seen["at"] = time.time()
    seen["pid"] = os.getpid()
    service.get_blob_client("seen", f"{kind}/{uuid.uuid4().hex}").upload_blob(json.dumps(seen))


def _wait_until_there_is(path: str | None) -> None:
    while path is not None and not os.path.exists(path):  # noqa: PTH110 - the path is text from elsewhere
        time.sleep(0.02)


@app.route(route="open/{name:alpha?}", methods=["GET", "POST"], auth_level=func.AuthLevel.ANONYMOUS)
def open_door(req: func.HttpRequest) -> func.HttpResponse:
    """Tell what arrived."""
    body = {
        "method": req.method,
        "url": req.url,
        "headers": dict(req.headers),
        "params": dict(req.params),
        "route": dict(req.route_params),
        "length": len(req.get_body()),
        "body": req.get_body()[:100].decode(errors="replace"),
    }
    headers = {"x-answer": "yes", "set-cookie": "crumb=1; Path=/; HttpOnly; SameSite=Lax"}
    return func.HttpResponse(json.dumps(body), mimetype="application/json", headers=headers)


@app.route(route="items/{number:int}", methods=["GET"])
def item_by_number(req: func.HttpRequest) -> str:
    """A constrained route, at the default level."""
    return f"number {req.route_params['number']}"


@app.route(route="items/{name}", methods=["GET"])
def item_by_name(req: func.HttpRequest) -> str:
    """A free route beside a constrained one."""
    return f"name {req.route_params['name']}"


@app.route(route="items/special", methods=["GET"])
def item_special(req: func.HttpRequest) -> str:
    """A literal route beside free ones."""
    return f"special {req.method}"


@app.route(route="files/{*rest}", methods=["GET"], auth_level=func.AuthLevel.ADMIN)
async def files(req: func.HttpRequest) -> str:
    """A catch-all route, at the admin level, as a coroutine."""
    return f"rest {req.route_params.get('rest', '')}"


@app.route(route="broken", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def broken(req: func.HttpRequest) -> func.HttpResponse:
    """Raise."""
    raise RuntimeError(f"a secret of {req.method}")


@app.route(route="exit", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def leaves(req: func.HttpRequest) -> func.HttpResponse:
    """Try to end the process."""
    raise SystemExit(req.method)


@app.route(route="send", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@app.queue_output(arg_name="messages", queue_name="%WORK_QUEUE%", connection="SAMPLE_STORAGE")
# The worker library takes no `list[str]` within `Out`.
def send(req: func.HttpRequest, messages: func.Out[List[str]]) -> func.HttpResponse:  # noqa: UP006
    """Put each line of the body on the queue."""
    messages.set(req.get_body().decode().splitlines())
    return func.HttpResponse(status_code=202)


@app.queue_trigger(arg_name="msg", queue_name="%WORK_QUEUE%", connection="SAMPLE_STORAGE")
def work(msg: func.QueueMessage, context: func.Context) -> None:
    """Do as the message says: {"fail": true}, {"sleep_s": 2}, {"until": "a file is there"}, or plain text."""
    text = msg.get_body().decode()
    _note("work-began", text=text, count=msg.dequeue_count, id=msg.id, invocation=context.invocation_id)
    order = json.loads(text) if text.startswith("{") else {}
    time.sleep(order.get("sleep_s", 0))
    _wait_until_there_is(order.get("until"))
    if order.get("fail"):
        raise ValueError("told to fail")
    _note("work", text=text, count=msg.dequeue_count, inserted=str(msg.insertion_time))


@app.queue_trigger(arg_name="msg", queue_name="relay", connection="SAMPLE_STORAGE")
@app.queue_output(arg_name="$return", queue_name="relayed", connection="SAMPLE_STORAGE")
def relay(msg: func.QueueMessage) -> str:
    """Send a message on."""
    return msg.get_body().decode().upper()


@app.blob_trigger(
    arg_name="blob", path="incoming/{name}", connection="SAMPLE_STORAGE", source=func.BlobSource.EVENT_GRID
)
def arrived(blob: sdk.BlobClient) -> None:
    """A blob trigger with a client."""
    text = blob.download_blob().readall().decode()
    _note("arrived", name=blob.blob_name, container=blob.container_name, text=text)
    if text == "fail":
        raise ValueError("told to fail")


@app.blob_trigger(arg_name="stream", path="texts/{folder}/{name}.txt", connection="SAMPLE_STORAGE")
def text_arrived(stream: func.InputStream) -> None:
    """A blob trigger with the bytes."""
    _note(
        "text",
        name=stream.name,
        length=stream.length,
        text=stream.read().decode(),
        uri=stream.uri,
        metadata=getattr(stream, "metadata", None),
    )


@app.schedule(arg_name="timer", schedule="%TICK_SCHEDULE%")
def tick(timer: func.TimerRequest) -> None:
    """A timer."""
    status = dict(getattr(timer, "schedule_status", {}))
    _note("tick-began", past_due=timer.past_due, status=status)
    time.sleep(float(os.environ.get("TICK_SLEEP_S", "0")))
    _wait_until_there_is(os.environ.get("TICK_UNTIL"))
    _note("tick", past_due=timer.past_due, status=status)
    if os.environ.get("TICK_FAILS"):
        raise ValueError("told to fail")
