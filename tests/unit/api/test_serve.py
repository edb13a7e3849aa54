from __future__ import annotations

import resource

import pytest

from api.serve import HttpServer
from delen.errors import ConfigError


def test_more_connections_than_files_may_be_open_are_refused() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        pytest.skip("any number of files may be open here")
    with pytest.raises(ConfigError, match=f"server.connections needs .* may have {hard}"):
        HttpServer(lambda environ, start_response: [], 1, hard)
