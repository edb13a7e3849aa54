"""What can be said of a build before torch is loaded, which takes seconds."""

from __future__ import annotations

from delen.errors import InvalidInput
from multiexit_models.data.source import check_options, find_kind
from multiexit_models.export.folder import check_target
from multiexit_models.spec import BuildSpec


def check_spec(spec: BuildSpec) -> str:
    """The kind of the data of ``spec``. InvalidInput where they are of none, where its options are
    not for that kind, and where its output or another file could not be written."""
    check_target(spec.output, spec.overwrite)
    for option in ("save_weights", "checkpoint"):
        file = getattr(spec, option)
        if file is not None and not file.absolute().parent.is_dir():
            raise InvalidInput(f"{file.parent} is not a folder", option)
    kind = spec.kind or find_kind(spec.data)
    check_options(kind, vars(spec))
    return kind
