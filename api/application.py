"""Flask, without what no rule of delen's needs."""

from __future__ import annotations

from flask import Flask, Request
from werkzeug.routing import MapAdapter


class Application(Flask):
    """A Flask whose rules name no host and redirect nobody. So the host that a client names, which
    Flask reads twice for each request, is not looked at."""

    def __init__(self, name: str) -> None:
        super().__init__(name, static_folder=None)
        self.url_map.merge_slashes = False

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        if request is None:
            return None
        return self.url_map.bind("", path_info=request.path, default_method=request.method)
