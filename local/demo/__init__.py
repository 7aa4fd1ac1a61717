"""The demo: the whole job on this machine, on real data, in about a minute."""

from local.demo.show import run

__all__ = ["run"]
