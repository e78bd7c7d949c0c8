"""The HTTP side of a server: ``/predict``, ``/model``, ``/health``, ``/metrics``, a page to try the model, and the schema. A server
of several models has ``/models``, ``/models/NAME`` and ``/models/NAME/predict`` in place of the first two. No torch."""

from __future__ import annotations

import asyncio
import importlib.resources
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from graftwork.core.input_kinds import input_kind
from graftwork.core.version import __version__
from graftwork.data.names import did_you_mean, short_list
from graftwork.serving.bodies import read_body, understood
from graftwork.serving.describing import answer_schema, describe, error_schema, request_bodies
from graftwork.serving.guard import Guard, refusal_headers
from graftwork.serving.hosts import AllowedHosts
from graftwork.serving.problems import Problem, RequestError
from graftwork.serving.served_model import ServedModel
from graftwork.serving.service import Service

__all__ = ["create_app"]

PATHS = ("/", "/docs", "/health", "/metrics", "/model", "/openapi.json", "/predict")
PATHS_OF_SEVERAL = ("/", "/docs", "/health", "/metrics", "/models", "/models/NAME", "/models/NAME/predict", "/openapi.json")
_PAGES = {"/": "try.html", "/docs": "docs.html"}
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_ASSETS = ("page.css", "shared.js", "try.js", "pixels.js", "docs.js")
Responses = dict[int | str, dict[str, Any]]
_ERROR: dict[str, Any] = {"content": {"application/json": {"schema": error_schema()}}}
_FAULTS: Responses = {
    status: {"description": text, **_ERROR}
    for status, text in {
        400: "The body is not what its content type says",
        408: "The body came too slowly",
        413: "The body, or its pictures, are too large",
        415: "Wrong content type",
        421: "The server does not go by the name in the Host header",
        422: "Rows or options are wrong; every fault is listed",
        503: "Too many requests in work, or the server is stopping",
        504: "No answer in time",
    }.items()
}


def create_app(service: Service, *, token: str | None = None, hosts: AllowedHosts | None = None) -> Any:
    """Return the ASGI application that serves one model or several.

    Args:
        service: The models; close it when the server has stopped.
        token: What clients must send as ``Authorization: Bearer``; None lets everybody in. The empty page and ``/health`` stay
            open.
        hosts: The names that the server answers to; None answers to any.
    """
    only, paths = service.only_model, PATHS if service.only_model is not None else PATHS_OF_SEVERAL
    app = FastAPI(
        title=f"graftwork: {service.title}",
        version=__version__,
        description=f"Predicts {', '.join(only.tasks)} from {_what(only)}."
        if only is not None
        else f"{len(service.models)} models that share the backbone {service.title}.",
        # Own pages: those of FastAPI load scripts from elsewhere, and a server may have no network.
        docs_url=None,
        redoc_url=None,
        # They would send clients to whatever the Host header names.
        redirect_slashes=False,
    )
    _add_errors(app, paths)
    _add_pages(app, several=only is None)
    locked: Responses = {401: {"description": "The token is missing or wrong", **_ERROR}} if token else {}
    _add_state(app, service, locked)
    if only is not None:
        _add_answers(app, service, only, locked)
    else:
        _add_several(app, service, locked)
    if token:
        _announce_token(app)
    assets = {f"/assets/{name}" for name in _ASSETS}
    # Outermost: size, token and metrics are looked at before the framework reads anything.
    return Guard(
        app,
        metrics=service.metrics,
        paths=frozenset(paths),
        open_paths=frozenset({*_PAGES, *assets, "/health"}),
        max_body_bytes=service.limits.max_body_bytes,
        max_bodies_bytes=service.limits.max_bodies_bytes,
        token=token,
        hosts=hosts,
        is_stopping=lambda: service.is_stopping,
        counted_as=_without_names if only is None else str,
    )


def _without_names(path: str) -> str:
    """Return a path as it is counted: thousands of models would be thousands of series."""
    head, _, rest = path.removeprefix("/models/").partition("/")
    if path == f"/models/{head}" and head:
        return "/models/NAME"
    return "/models/NAME/predict" if path == f"/models/{head}/predict" and rest == "predict" else path


def _add_errors(app: FastAPI, paths: Sequence[str]) -> None:
    async def refuse(_: Request, refusal: Any) -> Response:
        return _json(refusal.json(), status=refusal.status, headers=refusal_headers(refusal))

    async def http_error(request: Request, error: Any) -> Response:
        # Starlette's own words for these two say nothing about what is allowed.
        allowed = {404: f"one of {', '.join(paths)}", 405: f"the methods {(error.headers or {}).get('Allow', '')}"}
        message = {404: "There is nothing here.", 405: "This path does not take the method."}.get(
            error.status_code, str(error.detail)
        )
        given = {404: request.url.path, 405: request.method}.get(error.status_code)
        refusal = RequestError(error.status_code, message, Problem("", given, allowed.get(error.status_code, "see /docs")))
        return _json(refusal.json(), status=error.status_code, headers=error.headers)

    async def failed(_: Request, error: Exception) -> Response:
        return _json({"error": f"The server failed ({type(error).__name__}). Its log says more.", "problems": []}, status=500)

    app.add_exception_handler(RequestError, refuse)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, failed)


def _add_pages(app: FastAPI, *, several: bool) -> None:
    folder = importlib.resources.files("graftwork.serving") / "page"

    def add(path: str, name: str) -> None:
        content = (folder / name).read_bytes()
        if several:
            # The page asks for a list of models first.
            content = content.replace(b'<html lang="en">', b'<html lang="en" data-several="true">', 1)
        kind = _KINDS[name.rpartition(".")[2]]

        async def page() -> Response:
            return Response(content, media_type=f"{kind}; charset=utf-8")

        app.get(path, include_in_schema=False)(page)

    for path, name in _PAGES.items():
        add(path, name)
    for name in _ASSETS:
        add(f"/assets/{name}", name)


def _add_state(app: FastAPI, service: Service, locked: Responses) -> None:
    @app.get("/health", summary="Whether the server answers", responses={200: _answer({"type": "object"})})
    async def health() -> Response:
        return _json({"status": "ok", "requests_waiting": service.batcher.num_waiting})

    text = {"description": "OK", "content": {CONTENT_TYPE_LATEST.partition(";")[0]: {"schema": {"type": "string"}}}}

    @app.get("/metrics", summary="Counts and times for Prometheus", response_class=Response, responses={200: text, **locked})
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})


def _add_answers(app: FastAPI, service: Service, model: ServedModel, locked: Responses) -> None:
    # Once: the model does not change while it is served.
    description = describe(model)

    @app.get(
        "/model", summary="Inputs, tasks, limits, costs and controls", responses={200: _answer({"type": "object"}), **locked}
    )
    async def described() -> Response:
        return _json(description)

    @app.post(
        "/predict",
        summary="Predict rows, texts or pictures",
        openapi_extra={"requestBody": request_bodies(model)},
        responses={200: _answer(answer_schema(model)), **_FAULTS, **locked},
    )
    async def predict(request: Request) -> Response:
        return await _predict(service, model, request)


def _add_several(app: FastAPI, service: Service, locked: Responses) -> None:
    models = service.models
    # The schema of each stands at its own path: those of a thousand models are no page that anybody reads.
    names = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": list(models)}}
    listed = [
        {"name": name, "plan": model.plan, "kind": model.kind, "tasks": list(model.tasks)} for name, model in models.items()
    ]
    missing: Responses = {404: {"description": "There is no model of this name; the answer lists those that there are", **_ERROR}}

    def named(name: str) -> ServedModel:
        if name in models:
            return models[name]
        allowed = f"one of {short_list(list(models))}.{did_you_mean(name, models)}"
        raise RequestError(404, "There is no model of this name.", Problem("model", name, allowed))

    @app.get("/models", summary="The models and their tasks", responses={200: _answer({"type": "object"}), **locked})
    async def listing() -> Response:
        return _json({"backbone": service.title, "models": listed})

    @app.get(
        "/models/{name}",
        summary="Inputs, tasks and limits of a model, and the schemas of its requests and answers",
        openapi_extra={"parameters": [names]},
        responses={200: _answer({"type": "object"}), **missing, **locked},
    )
    async def described(request: Request) -> Response:
        model = named(request.path_params["name"])
        schemas = {"request": request_bodies(model), "answer": answer_schema(model)}
        return _json({**describe(model), "schemas": schemas})

    @app.post(
        "/models/{name}/predict",
        summary="Predict rows, texts or pictures with a model",
        openapi_extra={"parameters": [names], "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}},
        responses={200: _answer({"type": "object"}), **missing, **_FAULTS, **locked},
    )
    async def predict(request: Request) -> Response:
        return await _predict(service, named(request.path_params["name"]), request)


def _announce_token(app: FastAPI) -> None:
    """Let the schema say that a token is needed."""
    plain = app.openapi

    # The routes know nothing of the token, which the guard asks for; the schema has to say it.
    def openapi() -> dict[str, Any]:
        schema = plain()
        schema.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, methods in schema["paths"].items():
            for operation in methods.values():
                operation["security"] = [] if path == "/health" else [{"token": []}]
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _answer(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": "OK", "content": {"application/json": {"schema": schema}}}


def _json(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status_code=status, headers=dict(headers or {}), media_type="application/json")


async def _predict(service: Service, model: ServedModel, request: Request) -> Response:
    started = time.perf_counter()
    limits = service.limits
    # Before the body is read, and again when it is there: clients that send slowly must not keep the others out.
    _check_queue(service)
    try:
        async with asyncio.timeout(limits.timeout):
            content = await read_body(model, request)
    except TimeoutError as error:
        raise RequestError(
            408, "The request came too slowly.", Problem("", None, f"a whole body in {limits.timeout:g} s")
        ) from error
    except ClientDisconnect:
        # Nobody is there to read an answer; the status is for the metrics.
        return Response(status_code=400)
    _check_queue(service)
    with service.at_work():
        try:
            # What reading took is gone from the time for the answer.
            async with asyncio.timeout(max(0.0, limits.timeout - (time.perf_counter() - started))):
                ask, rows = await understood(model, content)
                body = await model.answer(ask, await model.finish_rows(rows), started=started)
        except TimeoutError as error:
            problem = Problem("", None, f"an answer in {limits.timeout:g} s; send fewer rows at once, or ask again later")
            raise RequestError(504, "The model did not answer in time.", problem, retry_after=1) from error
    return Response(body, media_type="application/json")


def _check_queue(service: Service) -> None:
    if service.requests_in_work >= service.limits.max_queue:
        problem = Problem(
            "", f"{service.requests_in_work} requests in work", f"at most {service.limits.max_queue}; ask again a little later"
        )
        raise RequestError(503, "The server has too much to do.", problem, retry_after=1)


def _what(model: ServedModel) -> str:
    return "rows with inputs of several kinds" if model.kind == "joint" else input_kind(model.kind).noun
