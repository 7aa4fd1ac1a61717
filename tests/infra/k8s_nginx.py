"""Routes of the Gateway API, carried out by a local nginx: weights by `split_clients`, matches by one ordered `map`.

The map looks at what tests.infra.k8s_routing says in the order that it says. An answer says which backend was chosen,
in the header `x-backend`, and by which routes, in `x-routes`. Nothing is tried twice; connections to backends are kept
open as a Gateway does, and those of callers are not, so that what fails is not their own race with a reload.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.infra.k8s import Resource
from tests.infra.k8s_routing import headers_of, path_pattern, wanted_headers, ways, weights
from tests.support.waiting import eventually


def nginx_program() -> str:
    """Nginx itself; without it the test is skipped. SLIPWAY_NGINX names one that is not on the path."""
    found = os.environ.get("SLIPWAY_NGINX") or shutil.which("nginx")
    if found is None:
        pytest.skip("nginx is not installed: a distribution's package has it")
    return found


_CONFIG = """
daemon off;
worker_processes 2;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  map_hash_bucket_size 256;
  variables_hash_bucket_size 128;
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
      if ($backend = "") {{ return 404; }}
      proxy_pass http://$backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_next_upstream off;
      add_header x-backend $backend always;
      add_header x-routes {routes} always;
    }}
  }}
}}
"""


def config(routes: list[Resource], addresses: dict[str, str], *, port: int, folder: Path) -> str:
    """What nginx is told. `addresses` are those of the routes' backends, host and port."""
    lines = [f"  upstream {name} {{ server {address}; keepalive 16; }}" for name, address in addresses.items()]
    names, found = headers_of(routes), ways(routes)
    rules: dict[int, str] = {}
    for way in found:
        if id(way.rule) not in rules:
            rules[id(way.rule)] = f"$split_{len(rules)}"
            lines += _split(rules[id(way.rule)], weights(way.rule))
    asked = "|".join(["$request_method", "$uri", *("$http_" + name.replace("-", "_") for name in names)])
    lines.append(f'  map "{asked}" $backend {{\n    default "";')
    for way in found:
        wanted = wanted_headers(way.match)
        parts = [way.match.get("method", "[A-Z]+"), path_pattern(way.match)]
        parts += [re.escape(wanted[name]) if name in wanted else "[^|]*" for name in names]
        pattern = r"\\|".join(part.replace("\\", "\\\\") for part in parts)
        lines.append(f'    "~^{pattern}$" {rules[id(way.rule)]};')
    lines.append("  }")
    return _CONFIG.format(folder=folder, port=port, chosen="\n".join(lines), routes=digest(routes))


def digest(routes: list[Resource]) -> str:
    """A name for some routes."""
    return hashlib.sha256(json.dumps(routes, sort_keys=True).encode()).hexdigest()[:16]


def _split(variable: str, shares: dict[str, int]) -> list[str]:
    """A variable that names one of the backends, by their weights."""
    total = sum(shares.values())
    *first, (last, _) = shares.items()
    parts = "".join(f" {100 * weight / total:.2f}% {name};" for name, weight in first)
    return [f'  split_clients "$request_id" {variable} {{{parts} * {last}; }}']


@dataclass(slots=True, kw_only=True)
class Nginx:
    """A running nginx, and the routes that it carries out."""

    program: str
    folder: Path
    port: int
    addresses: dict[str, str]
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, routes: list[Resource]) -> None:
        """Begin with some routes."""
        self._write(routes)
        self._process = subprocess.Popen([self.program, "-p", self.folder, "-c", self.folder / "nginx.conf"])
        eventually((self.folder / "pid").exists, what="nginx has started")

    def follow(self, routes: list[Resource]) -> None:
        """Carry out other routes from now on; requests that are under way end by the earlier ones."""
        assert self._process is not None
        self._write(routes)
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)

    def _write(self, routes: list[Resource]) -> None:
        text = config(routes, self.addresses, port=self.port, folder=self.folder)
        (self.folder / "nginx.conf").write_text(text, "utf-8")
