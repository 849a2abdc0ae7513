"""The one exception that users are meant to read."""


class UserError(Exception):
    """A mistake that the user can mend: one sentence naming the argument, the cause and the remedy.

    It names settings as `section.key` and stages by their names ("run collect first"). The command line prints it with
    the words to type in their place (`cli/sentences.py`), without a traceback, and exits with `exit_code`.
    """

    exit_code = 1
    details = ""
    """What else may help, such as the traceback of another process."""


class UsageError(UserError):
    """Wrong words on the command line or in a settings file; nothing was started."""

    exit_code = 2
