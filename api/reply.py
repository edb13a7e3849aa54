"""JSON answers."""

from __future__ import annotations

import json
from typing import Any

from flask import Response


def reply(document: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(document), status, content_type="application/json")
