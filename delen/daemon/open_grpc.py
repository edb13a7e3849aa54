"""The gRPC server of a configuration, where there is to be one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from delen.daemon.config import Config
from delen.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from api.application import Application
    from api.oip.grpc_server import GrpcServer
    from api.server.tls import Tls

log = logging.getLogger("delen")


def open_grpc(config: Config, app: Application, tls: Tls | None) -> GrpcServer | None:
    """A server that listens at ``server.grpc_port``, encrypted if there is ``tls``. None where that
    is off, and where the port that nobody asked for cannot be had; ConfigError or MissingExtra
    where it was asked for."""
    port, is_default = config["server.grpc_port"], config.origins["server.grpc_port"] == "default"
    if port < 0:
        return None
    try:
        from api.oip.grpc_server import GrpcServer

        server = GrpcServer(app.grpc_handler, config["server.connections"], app.max_body)
    except ModuleNotFoundError as error:
        if is_default:
            return None
        raise MissingExtra(f"{error.name} (for server.grpc_port)", "grpc") from error
    try:
        server.listen(config["server.host"], port, tls)
    except ConfigError as error:
        if not is_default:
            raise
        log.warning("%s: this daemon serves HTTP alone", error)
        return None
    return server
