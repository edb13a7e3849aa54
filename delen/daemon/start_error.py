"""Why a daemon does not start, as an error of its configuration."""

from __future__ import annotations

import errno

from delen.errors import ConfigError, DelenError, MissingExtra, PowerError

_FILES = "Too many open files"
_THREADS = "can't start new thread"


def as_start_error(error: BaseException) -> BaseException:
    """``error``, as a ConfigError where another start would end in the same way."""
    if isinstance(error, (ConfigError, MissingExtra)):
        return error
    if isinstance(error, DelenError):
        remedy = f"; {error.remedy}" if isinstance(error, PowerError) and error.remedy else ""
        return ConfigError(f"{error}{remedy}")
    is_short = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
    if is_short or (isinstance(error, ImportError) and _FILES in str(error)):
        return ConfigError(
            "this process may open too few files: raise the limit (ulimit -n, LimitNOFILE=)"
        )
    if isinstance(error, RuntimeError) and _THREADS in str(error):
        return ConfigError(
            "this process may start too few threads: raise the limit (ulimit -u, TasksMax=), or "
            "set server.threads and device.threads lower"
        )
    return error
