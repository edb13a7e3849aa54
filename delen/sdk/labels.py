"""Labels of past answers, as an app has them and as JSON has them."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral

from delen.core.bounds import check_text
from delen.errors import InvalidInput


def plain_labels(labels: object) -> dict[str, int | str]:
    """``labels`` as JSON has them; InvalidInput for what is not labels by request id."""
    if not isinstance(labels, Mapping):
        raise InvalidInput(
            f"labels must be a dict of labels by request id, not {labels!r}", "labels"
        )
    return {
        check_text(id, "labels", "labels by the ids of requests"): _plain_label(label)
        for id, label in labels.items()
    }


def _plain_label(label: object) -> int | str:
    """``label`` as JSON has it; InvalidInput unless it is a whole number (numpy's too) or text."""
    wanted = "the index or the name of a class"
    if isinstance(label, str):
        return check_text(label, "labels", wanted)
    if isinstance(label, bool) or not isinstance(label, Integral):
        raise InvalidInput(f"a label must be {wanted}, not {label!r}", "labels")
    return int(label)
