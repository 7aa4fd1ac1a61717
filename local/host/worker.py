"""Drives Microsoft's worker library: it indexes the app and runs its functions, in this process, as in Azure.

The library keeps its state in module globals, so a process holds one app. Where the app does not index, Azure shows no
functions and no error; here that is an error naming each function at fault.
"""

import logging
import sys
import uuid
from pathlib import Path
from typing import Any

import azure_functions_runtime as runtime
from azure.functions import FunctionRegister
from azure_functions_runtime.functions import Registry

from local.host import protos
from local.host.bindings import Function
from local.host.errors import HostStartError

_log = logging.getLogger("host.worker")


class Worker:
    """The library with one app loaded."""

    async def load(self, app_dir: Path, script: str = "function_app.py") -> list[protos.RpcFunctionMetadata]:
        """Import and index the app, and return its functions. Raises HostStartError; call once a process.

        `app_dir` must be on the import path already.
        """
        _check_exists(app_dir / script)
        runtime.start_threadpool_executor()
        init = protos.StreamingMessage(
            worker_init_request=protos.WorkerInitRequest(function_app_directory=str(app_dir))
        )
        loaded = await runtime.worker_init_request(_request(init))
        module = Path(script).stem
        if loaded.result.status != protos.StatusResult.Success:
            exception = loaded.result.exception
            reasons = _why_not_indexed(module)
            if not reasons:
                _log.error("%s", exception.stack_trace.rstrip())
            raise HostStartError("; ".join(reasons) or f"{app_dir / script} does not load: {exception.message}")
        _check_origin(module, app_dir / script)
        answer = await runtime.functions_metadata_request(_request(protos.StreamingMessage()))
        functions: list[protos.RpcFunctionMetadata] = answer.function_metadata_results or []
        if not functions:
            raise HostStartError(f"{app_dir / script} declares no function: decorate one, or register a blueprint")
        _check_names(functions)
        return functions

    async def invoke(
        self, function: Function, invocation_id: str, data: protos.TypedData, metadata: dict[str, protos.TypedData]
    ) -> protos.InvocationResponse:
        """Run a function once. What it raises comes back as a failure, also where it asks the process to exit."""
        request = protos.InvocationRequest(
            invocation_id=invocation_id,
            function_id=function.id,
            input_data=[protos.ParameterBinding(name=function.trigger.name, data=data)],
            trigger_metadata=metadata,
            trace_context=protos.TraceContext(trace_parent=f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"),
        )
        try:
            response: protos.InvocationResponse = await runtime.invocation_request(
                _request(protos.StreamingMessage(invocation_request=request))
            )
        except (SystemExit, KeyboardInterrupt) as error:
            failure = protos.RpcException(message=f"{type(error).__name__}: a function must not end the process")
            return protos.InvocationResponse(
                invocation_id=invocation_id,
                result=protos.StatusResult(status=protos.StatusResult.Failure, exception=failure),
            )
        return response


def _request(message: protos.StreamingMessage) -> protos.Request:
    return protos.Request(request=message, properties={"host": "127.0.0.1", "protos": protos})


def _check_exists(script: Path) -> None:
    if not script.is_file():
        raise HostStartError(f"{script} does not exist: name the app's directory with --app-dir")


def _check_origin(module: str, wanted: Path) -> None:
    found = Path(sys.modules[module].__file__ or "").resolve()
    if found != wanted.resolve():
        raise HostStartError(f"import {module} found {found}, not {wanted}: what stands first on the path hides it")


def _check_names(functions: list[protos.RpcFunctionMetadata]) -> None:
    # The library compares names as they are; Azure, and the paths of the host's blobs, whatever their case.
    seen: dict[str, str] = {}
    for function in functions:
        other = seen.setdefault(function.name.casefold(), function.name)
        if other != function.name:
            raise HostStartError.in_function(
                function.name, f"its name differs from {other!r} in case alone: rename one"
            )


def _why_not_indexed(module_name: str) -> list[str]:
    """Index each function alone, to name those at fault; the library's own message often names none."""
    found = vars(sys.modules.get(module_name, object)).values()
    apps: list[Any] = [value for value in found if isinstance(value, FunctionRegister)]
    if len(apps) != 1:
        return []
    # Without this reset the app would take its own functions for duplicates: get_functions() is not idempotent.
    apps[0].functions_bindings = {}
    try:
        functions = apps[0].get_functions()
    except Exception:  # noqa: BLE001 - whatever it is, the library's message tells it
        return []
    reasons = []
    for function in functions:
        try:
            Registry().add_indexed_function(function=function, protos=protos)
        except Exception as error:  # noqa: BLE001 - any error keeps the function from being indexed
            reasons.append(f"function {function.get_function_name()!r} does not index: {type(error).__name__}: {error}")
    return reasons
