"""A route of the Gateway API, carried out by a local nginx: weights by `split_clients`, header matches by `map`.

The proxy says which backend it chose in the header `x-backend`, tries nothing twice, and keeps connections to backends
open as a Gateway does. Connections of callers are not kept, so that what fails is not their own race with a reload.
"""

import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.waiting import eventually

_CONFIG = """
daemon off;
worker_processes 2;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/bodies;
  proxy_temp_path {folder}/proxied;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{chosen}
  server {{
    listen 127.0.0.1:{port};
    keepalive_timeout 0;
    location / {{
      proxy_pass http://$backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_next_upstream off;
      add_header x-backend $backend always;
    }}
  }}
}}
"""


def config(route: dict[str, Any], addresses: dict[str, str], *, port: int, folder: Path) -> str:
    """What nginx is told. `addresses` are those of the route's backends, host and port.

    A rule of the route is chosen by one header that it matches exactly, or, the last, by nothing.
    """
    *by_header, rest = route["spec"]["rules"]
    assert not rest.get("matches"), "the last rule takes what is left"
    lines = [f"  upstream {name} {{ server {address}; keepalive 16; }}" for name, address in addresses.items()]
    lines += _split("by_weight", rest["backendRefs"])
    previous = "$by_weight"
    for number, rule in enumerate(by_header):
        ((header,),) = [match["headers"] for match in rule["matches"]]
        lines += _split(f"split_{number}", rule["backendRefs"])
        variable = "$http_" + header["name"].lower().replace("-", "_")
        lines.append(f'  map {variable} $rule_{number} {{ "{header["value"]}" $split_{number}; default {previous}; }}')
        previous = f"$rule_{number}"
    lines.append(f'  map "" $backend {{ default {previous}; }}')
    return _CONFIG.format(folder=folder, port=port, chosen="\n".join(lines))


def _split(variable: str, backends: list[dict[str, Any]]) -> list[str]:
    """A variable that names one of the backends, by their weights."""
    weighted = [(backend["name"], backend.get("weight", 1)) for backend in backends if backend.get("weight", 1)]
    total = sum(weight for _, weight in weighted)
    *shares, (last, _) = weighted
    parts = "".join(f" {100 * weight / total:.2f}% {name};" for name, weight in shares)
    return [f'  split_clients "$request_id" ${variable} {{{parts} * {last}; }}']


@dataclass(slots=True, kw_only=True)
class Nginx:
    """A running nginx, and the route that it carries out."""

    program: str
    folder: Path
    port: int
    addresses: dict[str, str]
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self, route: dict[str, Any]) -> None:
        """Begin with a route."""
        self._write(route)
        self._process = subprocess.Popen([self.program, "-p", self.folder, "-c", self.folder / "nginx.conf"])
        eventually((self.folder / "pid").exists, what="nginx has started")

    def follow(self, route: dict[str, Any]) -> None:
        """Carry out another route from now on; requests that are under way end by the earlier one."""
        assert self._process is not None
        self._write(route)
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)

    def _write(self, route: dict[str, Any]) -> None:
        text = config(route, self.addresses, port=self.port, folder=self.folder)
        (self.folder / "nginx.conf").write_text(text, "utf-8")
