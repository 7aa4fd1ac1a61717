"""What stops the host from starting. Each message names the function, binding, setting or file that is at fault."""


class HostStartError(Exception):
    """The host cannot start with this app, these settings or this storage. Nothing was started."""

    @classmethod
    def in_function(cls, function: str, reason: str) -> "HostStartError":
        """An error that one function's declaration causes."""
        return cls(f"function {function!r}: {reason}")
