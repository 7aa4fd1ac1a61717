"""The demo's own error."""


class DemoError(Exception):
    """The demo cannot go on. The message is one sentence: what was waited for, or what was not as it must be."""
