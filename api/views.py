"""The control addresses of the REST API, ``/v1``, as a Flask application over a Runtime."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, request
from msgspec import UNSET

from api.caller import Caller, FlaskSender
from api.dashboard.figures import make_figures
from api.dashboard.page import PAGE, PAGE_HEADERS
from api.energy_views import EnergyViews
from api.fleet_views import FleetViews
from api.guard import Guard, guarded, is_oip
from api.metrics.device import DeviceCollector
from api.metrics.energy import EnergyCollector
from api.metrics.failures import FailureCollector
from api.metrics.fleet import FleetCollector
from api.metrics.requests import CONTENT_TYPE, Metrics
from api.metrics.residency import ResidencyCollector, describe
from api.metrics.runtime import RuntimeCollector
from api.metrics.tenants import TenantCollector
from api.openapi.docs import DOCS, DOCS_HEADERS
from api.openapi.document import document as openapi_document
from api.parse import query_text, read_plan, read_query, read_request
from api.policy_views import BUILT_IN, PolicyNames, PolicyViews
from api.refusals import Refusals
from api.reply import JSON, Reply, reply
from api.tenant_access import UNBOUND, TenantAccess
from delen.core.energy_status import EnergyService
from delen.engine.health import hung
from delen.engine.model import Model
from delen.engine.runtime import Runtime
from delen.errors import Draining
from delen.wire.answers import Feedback, Guarantee, Plan
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

Route = tuple[str, str, Callable[..., Response], list[str]]
"""Rule, endpoint, view and methods."""

INFER, RESUME = "infer", "resume"
EVENTS = "/v1/events"
MEMORY = "/v1/memory"
"""Addresses that the event loop answers; Flask knows only their methods."""


@dataclass(frozen=True, slots=True)
class Service:
    """What the addresses need."""

    runtime: Runtime
    energy: EnergyService
    metrics: Metrics
    guard: Guard
    default_model: str
    max_body: int
    max_bodies: int
    describe_device: Callable[[Model], dict[str, Any]]
    health: Callable[[], Health]
    version: str
    shared_memory: bool = False
    tenants: TenantAccess = UNBOUND
    policies: PolicyNames = BUILT_IN


def create_control(service: Service, refusals: Refusals, oip: Sequence[Route] = ()) -> Flask:
    """The WSGI application of all addresses but those of ``INFER`` and ``RESUME``, with the routes
    of ``oip``."""
    app = Flask("delen", static_folder=None)
    app.url_map.merge_slashes = False
    views = _Views(service)
    energy = EnergyViews(service.energy, service.tenants, service.guard)
    fleet = FleetViews(service.runtime)
    policies = PolicyViews(service.runtime, service.policies)
    service.metrics.include(RuntimeCollector(service.runtime))
    service.metrics.include(EnergyCollector(service.energy))
    service.metrics.include(DeviceCollector(service.energy))
    service.metrics.include(TenantCollector(service.energy))
    service.metrics.include(ResidencyCollector(service.runtime))
    service.metrics.include(FailureCollector())
    service.metrics.include(FleetCollector(service.runtime))
    for rule, view, methods in [
        *views.routes(),
        *energy.routes(),
        *fleet.routes(),
        *policies.routes(),
    ]:
        app.add_url_rule(rule, view.__name__, view, methods=methods)
    for rule, name, view, methods in oip:
        app.add_url_rule(rule, name, view, methods=methods)
    for name in (INFER, RESUME):
        for rule in (f"/v1/{name}", f"/v1/models/<model>/{name}"):
            app.add_url_rule(rule, name, methods=["POST"])
    app.add_url_rule(EVENTS, "events", methods=["GET"])
    app.add_url_rule(MEMORY, "memory", methods=["GET"])

    def refuse(error: Exception) -> Response:
        return refusals.of(error, request.method, request.path).to_flask()

    def check() -> None:
        view = app.view_functions.get(request.endpoint or "")
        service.guard.check(view, Caller.of_flask(), is_oip(request.path))

    app.before_request(check)
    app.register_error_handler(Exception, refuse)
    return app


def _summary(model: Model) -> ProfileSummary:
    profile = model.costs.profile
    return ProfileSummary(
        created=profile.created,
        quick=profile.quick,
        rough=any(size.costs.profile.rough for size in model.sizes),
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
        highest_floor=floor_without_error(table, model.planner.level, settings.procedure),
    )


class _Views:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._runtime = service.runtime

    def routes(self) -> list[tuple[str, Callable[..., Response], list[str]]]:
        return [
            ("/v1/plan", self.plan_default, ["POST"]),
            ("/v1/models/<model>/plan", self.plan, ["POST"]),
            ("/v1/models", self.models, ["GET"]),
            ("/v1/models/<model>", self.model, ["GET"]),
            ("/v1/feedback", self.feedback_default, ["POST"]),
            ("/v1/models/<model>/feedback", self.feedback, ["POST"]),
            ("/v1/models/<model>/load", self.load, ["POST"]),
            ("/v1/models/<model>/unload", self.unload, ["POST"]),
            ("/", self.page, ["GET"]),
            ("/v1/figures", self.figures, ["GET"]),
            ("/metrics", self.metrics, ["GET"]),
            ("/healthz", self.healthz, ["GET"]),
            ("/readyz", self.readyz, ["GET"]),
            ("/openapi.json", self.openapi, ["GET"]),
            ("/docs", self.docs, ["GET"]),
        ]

    def plan_default(self) -> Response:
        return self.plan(self._service.default_model)

    def plan(self, model: str) -> Response:
        bounds, named = read_plan(query_text(), request.get_data())
        tenant = self._service.tenants.tenant(named, FlaskSender())
        return reply(Plan.of(self._runtime.preview(model, bounds, tenant)))

    def models(self) -> Response:
        read_query(NoFields, query_text())
        store = self._runtime.store
        return reply(Models(tuple(self._describe(name) for name, _ in store.entries())))

    def model(self, model: str) -> Response:
        read_query(NoFields, query_text())
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
            problem=entry.problem or self._runtime.health.problem_of(name),
            input=InputDescription.of(manifest.input),
            classes=manifest.classes,
            labels=manifest.labels,
            max_batch=manifest.max_batch,
            exits=tuple(
                Exit(index, exit.macs, exit.test_accuracy)
                for index, exit in enumerate(manifest.exits)
            ),
            sizes=manifest.all_sizes or UNSET,
            held_out=manifest.held_out,
            profile=UNSET if model is None else _summary(model),
            calibration=UNSET if model is None else _calibration(model),
            guarantee=UNSET if model is None else Guarantee.of(model.monitor.status()),
            memory=UNSET if segments is None or memory is None else describe(segments, memory),
        )

    @guarded
    def feedback_default(self) -> Response:
        return self.feedback(self._service.default_model)

    @guarded
    def feedback(self, model: str) -> Response:
        self._runtime.store.ready(model)
        posted = read_request(Labels, query_text(), request.get_data())
        taken = self._runtime.feedback(model, posted.labels)
        self._service.metrics.labelled(model, taken.accepted - taken.wrong, taken.wrong)
        return reply(Feedback.of(taken))

    @guarded
    def load(self, model: str) -> Response:
        read_request(NoFields, query_text(), request.get_data())
        self._runtime.load(model)
        return reply(self._describe(model))

    @guarded
    def unload(self, model: str) -> Response:
        read_request(NoFields, query_text(), request.get_data())
        self._runtime.unload(model)
        return reply(self._describe(model))

    def page(self) -> Response:
        read_query(NoFields, query_text())
        return Response(PAGE, headers=PAGE_HEADERS)

    def figures(self) -> Response:
        read_query(NoFields, query_text())
        return reply(make_figures(self._service))

    def metrics(self) -> Response:
        read_query(NoFields, query_text())
        store = self._runtime.store
        models = {
            name
            for name, entry in store.entries()
            if store.is_capped or entry.state != "unloaded"  # where it is, a request loads it
        }
        return Response(self._service.metrics.exposition(models), content_type=CONTENT_TYPE)

    def healthz(self) -> Response:
        return answer_health(self._service).to_flask()

    def readyz(self) -> Response:
        return answer_ready(self._service).to_flask()

    def openapi(self) -> Response:
        description = json.dumps(openapi_document(self._service.version))
        return Response(description, content_type=JSON)

    def docs(self) -> Response:
        return Response(DOCS.read_bytes(), headers=DOCS_HEADERS)


def answer_health(service: Service) -> Reply:
    """200 while requests can be answered, 503 where they cannot and a restart may help."""
    health = service.health()
    return Reply.of(health, 503 if health.status == "failing" else 200)


def answer_ready(service: Service) -> Reply:
    """200 while requests are accepted: the default model is loaded, or will be on demand, and does
    not hang."""
    if service.runtime.draining:
        raise Draining("the daemon is stopping", retry_after=1.0)
    store, name, health = service.runtime.store, service.default_model, service.runtime.health
    if name in health.hung_models():
        raise hung(name)
    entry, problems = store.entry(name), tuple(health.failing(time.monotonic()))
    if entry.model is None and store.is_capped and entry.state != "failed":
        return Reply.of(Ready("ready", None, problems))
    return Reply.of(Ready("ready", service.describe_device(store.ready(name)), problems))
