"""What ends a command with a message instead of a traceback."""


class CommandError(Exception):
    """The command cannot be done as it was given; the message says what to give instead."""
