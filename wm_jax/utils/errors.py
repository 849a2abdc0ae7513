"""The one exception that users are meant to read."""


class UserError(Exception):
    """A mistake that the user can mend: one sentence naming the argument, the cause and the remedy.

    The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 1
    details = ""
    """What `--debug` shows before the sentence, such as the traceback of another process."""


class UsageError(UserError):
    """Wrong words on the command line or in a settings file; nothing was started."""

    exit_code = 2
