"""The native REST API, ``/v1``, as a Flask application over a Runtime."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request
from msgspec import UNSET
from werkzeug.exceptions import HTTPException

from api.application import Application
from api.energy_views import EnergyViews
from api.guard import Guard
from api.metrics.energy import EnergyCollector
from api.metrics.failures import FailureCollector
from api.metrics.requests import CONTENT_TYPE, Metrics
from api.metrics.residency import ResidencyCollector, describe
from api.metrics.runtime import RuntimeCollector
from api.metrics.tenants import TenantCollector
from api.openapi.document import document as openapi_document
from api.parse import read_infer, read_plan, read_request, refuse_large_body
from api.reply import JSON, Answer, reply
from api.server.deferred import ARRIVED, PROCESSOR, SURPLUS, DeferredResponse
from delen.core.energy_status import EnergyService
from delen.engine.job import Job
from delen.engine.model import Model
from delen.engine.runtime import Runtime
from delen.errors import (
    BudgetExhausted,
    DelenError,
    Draining,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    RequestTimeout,
)
from delen.wire.answers import Feedback, Guarantee, Plan, Result, Results
from delen.wire.errors import Error
from delen.wire.models import (
    CalibrationSummary,
    Exit,
    Health,
    Metering,
    Models,
    ProfileSummary,
    Ready,
)
from delen.wire.models import Input as InputDescription
from delen.wire.models import Model as ModelDescription
from delen.wire.requests import Labels, NoFields
from policies.plan.thresholds import floor_without_error

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

log = logging.getLogger("delen.api")


@dataclass(frozen=True, slots=True)
class Service:
    """What the views need."""

    runtime: Runtime
    energy: EnergyService
    metrics: Metrics
    guard: Guard
    default_model: str
    max_body: int
    describe_device: Callable[[Model], dict[str, Any]]
    health: Callable[[], Health]
    version: str


def create_app(service: Service) -> Flask:
    """The WSGI application."""
    app = Application("delen")
    views = _Views(service)
    energy = EnergyViews(service.energy, service.guard, service.max_body)
    service.metrics.include(RuntimeCollector(service.runtime))
    service.metrics.include(EnergyCollector(service.energy))
    service.metrics.include(TenantCollector(service.energy))
    service.metrics.include(ResidencyCollector(service.runtime))
    service.metrics.include(FailureCollector())
    app.before_request(views.refuse)
    for rule, view, methods in [*views.routes(), *energy.routes()]:
        app.add_url_rule(rule, view.__name__, view, methods=methods)
    app.register_error_handler(DelenError, views.error)
    app.register_error_handler(HTTPException, views.http_error)
    app.register_error_handler(Exception, views.unexpected)
    return app


def _summary(model: Model) -> ProfileSummary:
    profile = model.costs.profile
    return ProfileSummary(
        created=profile.created,
        quick=profile.quick,
        busy=profile.busy,
        device=profile.device.key,
        slowdown=model.costs.slowdown.mean,
        energy=None if profile.energy is None else Metering.of(profile.energy),
        stale=model.costs.stale,
    )


def _calibration(model: Model) -> CalibrationSummary:
    table, settings = model.planner.calibration, model.planner.settings
    return CalibrationSummary(
        samples=table.samples,
        groups=None if table.groups is None else table.units,
        highest_floor=floor_without_error(table, settings.guarantee, settings.procedure),
    )


class _Views:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._runtime = service.runtime

    def routes(self) -> list[tuple[str, Callable[..., Response], list[str]]]:
        return [
            ("/v1/infer", self.infer_default, ["POST"]),
            ("/v1/models/<model>/infer", self.infer, ["POST"]),
            ("/v1/plan", self.plan_default, ["POST"]),
            ("/v1/models/<model>/plan", self.plan, ["POST"]),
            ("/v1/models", self.models, ["GET"]),
            ("/v1/models/<model>", self.model, ["GET"]),
            ("/v1/feedback", self.feedback_default, ["POST"]),
            ("/v1/models/<model>/feedback", self.feedback, ["POST"]),
            ("/v1/models/<model>/load", self.load, ["POST"]),
            ("/v1/models/<model>/unload", self.unload, ["POST"]),
            ("/metrics", self.metrics, ["GET"]),
            ("/healthz", self.healthz, ["GET"]),
            ("/readyz", self.readyz, ["GET"]),
            ("/openapi.json", self.openapi, ["GET"]),
        ]

    def refuse(self) -> None:
        """Overloaded for a client that there is no room for, TooLarge for a body beyond what is
        taken."""
        environ = request.environ
        if environ.get(SURPLUS):
            raise Overloaded(
                "as many connections are open as server.connections allows",
                retry_after=max(1.0, self._runtime.backlog_seconds()),
            )
        refuse_large_body(environ, self._service.max_body)

    def infer_default(self) -> Response:
        return self.infer(self._service.default_model)

    def infer(self, model: str) -> Response:
        environ = request.environ
        arrived = environ.get(ARRIVED, time.monotonic())
        processor = environ.get(PROCESSOR) or time.thread_time()
        spec = self._runtime.input_of(model)
        asked = read_infer(environ, spec, self._service.max_body)
        own = asked.sending + time.thread_time() - processor
        waited = max(0.0, time.monotonic() - arrived - own)
        jobs = self._runtime.submit_batch(
            model, asked.samples, asked.bounds, asked.options, arrived, waited
        )
        self._runtime.dispatch_now()
        return DeferredResponse(
            [job.future for job in jobs],
            lambda: self._answer(jobs, asked.is_batch, environ),
            lambda: self._runtime.cancel(jobs),
            lambda: not asked.is_batch and self._runtime.on_idle_lane,
        )

    def _answer(self, jobs: list[Job], is_batch: bool, environ: WSGIEnvironment) -> WSGIApplication:
        """The answer of ``jobs``, which have ended; the others are cancelled if one failed."""
        try:
            for job in jobs:
                if job.future.done():
                    job.future.result()
            results = tuple(Result.of(job.future.result()) for job in jobs)
            return Answer(Results(results) if is_batch else results[0])
        except Exception as error:
            self._runtime.cancel(jobs)
            if isinstance(error, DelenError):
                return self._refusal(error, environ)
            return self._failure(error, environ)

    def plan_default(self) -> Response:
        return self.plan(self._service.default_model)

    def plan(self, model: str) -> Response:
        bounds, tenant = read_plan(request.environ, self._service.max_body)
        return reply(Plan.of(self._runtime.preview(model, bounds, tenant)))

    def models(self) -> Response:
        store = self._runtime.store
        return reply(Models(tuple(self._describe(name) for name, _ in store.entries())))

    def model(self, model: str) -> Response:
        return reply(self._describe(model))

    def _describe(self, name: str) -> ModelDescription:
        entry = self._runtime.store.entry(name)
        manifest, model = entry.manifest, entry.model
        segments, memory = self._runtime.segments(name), self._runtime.memory()
        return ModelDescription(
            name=manifest.name,
            version=manifest.version,
            description=manifest.description,
            default=name == self._service.default_model,
            state=entry.state,
            problem=entry.problem,
            input=InputDescription.of(manifest.input),
            classes=manifest.classes,
            labels=manifest.labels,
            max_batch=manifest.max_batch,
            exits=tuple(
                Exit(index, exit.macs, exit.test_accuracy)
                for index, exit in enumerate(manifest.exits)
            ),
            held_out=manifest.held_out,
            profile=UNSET if model is None else _summary(model),
            calibration=UNSET if model is None else _calibration(model),
            guarantee=UNSET if model is None else Guarantee.of(model.monitor.status()),
            memory=UNSET if segments is None or memory is None else describe(segments, memory),
        )

    def feedback_default(self) -> Response:
        return self.feedback(self._service.default_model)

    def feedback(self, model: str) -> Response:
        self._service.guard.check(request)
        self._runtime.store.ready(model)
        posted = read_request(Labels, request.environ, self._service.max_body)
        taken = self._runtime.feedback(model, posted.labels)
        self._service.metrics.labelled(model, taken.accepted - taken.wrong, taken.wrong)
        return reply(Feedback.of(taken))

    def load(self, model: str) -> Response:
        self._guarded()
        self._runtime.load(model)
        return reply(self._describe(model))

    def unload(self, model: str) -> Response:
        self._guarded()
        self._runtime.unload(model)
        return reply(self._describe(model))

    def _guarded(self) -> None:
        self._service.guard.check(request)
        read_request(NoFields, request.environ, self._service.max_body)

    def metrics(self) -> Response:
        models = {name for name, _ in self._runtime.store.entries()}
        return Response(self._service.metrics.exposition(models), content_type=CONTENT_TYPE)

    def healthz(self) -> Response:
        """200 while requests can be answered, 503 where they cannot and a restart may help."""
        health = self._service.health()
        return reply(health, 503 if health.status == "failing" else 200)

    def readyz(self) -> Response:
        """200 while requests are accepted: the default model is loaded, or will be on demand."""
        if self._runtime.draining:
            raise Draining("the daemon is stopping", retry_after=1.0)
        store, name = self._runtime.store, self._service.default_model
        entry = store.entry(name)
        if entry.model is None and store.is_capped and entry.state != "failed":
            return reply(Ready("ready", None))
        return reply(Ready("ready", self._service.describe_device(store.ready(name))))

    def openapi(self) -> Response:
        description = json.dumps(openapi_document(self._service.version))
        return Response(description, content_type=JSON)

    def error(self, error: DelenError) -> Response:
        return self._refusal(error, request.environ)

    def _refusal(self, error: DelenError, environ: WSGIEnvironment) -> Response:
        self._service.metrics.refused(error.code)
        response = reply(Error.of(error), error.status)
        if isinstance(error, (BudgetExhausted, Overloaded)):
            response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
        if error.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if isinstance(error, RequestTimeout) or "HTTP_TRANSFER_ENCODING" in environ:
            response.headers["Connection"] = "close"
        return response

    def http_error(self, error: HTTPException) -> Response:
        """What Flask itself refuses, in the same form as all else."""
        if error.code == 404:
            return self.error(NotFound(f"there is nothing at {request.path}"))
        if error.code == 405:
            return self.error(
                MethodNotAllowed(f"{request.method} is not offered at {request.path}")
            )
        return self.error(InvalidInput(error.description or error.name))

    def unexpected(self, error: Exception) -> Response:
        return self._failure(error, request.environ)

    def _failure(self, error: Exception, environ: WSGIEnvironment) -> Response:
        log.error("%s %s failed", environ["REQUEST_METHOD"], environ["PATH_INFO"], exc_info=error)
        failed = DelenError(f"the daemon failed: {type(error).__name__}; see its log")
        return self._refusal(failed, environ)
