"""Every route for every kind of caller: what they get, that nothing of others shows, that a refusal changes nothing.

A route without a row in tests/api/access/routes.py fails here.
"""

from collections.abc import Iterator

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.api.access.callers import CALLERS, SETTINGS
from tests.api.access.routes import INBOX, ROUTES, Route
from tests.api.access.world import MAY_SEE, World, all_rows, client_of
from tests.api.conftest import StartService
from tests.api.expecting import refused
from tests.service import FakeModel, Service
from yral_chat.core.config import Settings
from yral_chat.main import create_app

CODES = {401: "unauthorized", 403: "forbidden"}


@pytest.fixture
def guarded(service_with: StartService, model: FakeModel) -> Service:
    """As in production."""
    return service_with(**SETTINGS, **model.picture_settings)


@pytest.fixture
def client(guarded: Service) -> Iterator[httpx2.Client]:
    with client_of(guarded) as found:
        yield found


def test_every_route_of_the_application_has_a_row(client: httpx2.Client) -> None:
    app = create_app(Settings(_env_file=None, environment="test"))
    found: set[tuple[str, str]] = set()
    for context in iter_route_contexts(app.routes):
        assert context.path_format is not None
        # What has no methods is a WebSocket, or a mounted folder.
        is_socket = type(context.original_route).__name__ == "APIWebSocketRoute"
        methods = set(context.methods or {"WEBSOCKET" if is_socket else "GET"}) - {"HEAD"}
        found |= {(method, context.path_format) for method in methods}
    assert found == {(route.method, route.path) for route in ROUTES}
    documented = client.get("/openapi.json").json()["paths"]
    assert {(method.upper(), path) for path, methods in documented.items() for method in methods} <= found


async def test_who_may_not_is_refused_and_sees_and_changes_nothing(guarded: Service, client: httpx2.Client) -> None:
    world, problems = World(guarded, client), []
    await world.build()
    before = all_rows(guarded)
    for route in ROUTES:
        if route.path == INBOX:
            continue
        for who in CALLERS:
            if route.access[who] == "ok":
                continue
            response = world.call(who, route.method, route.address(world), **route.request(world))
            problems += [f"{who}: {route.name}: {problem}" for problem in _faults(route, who, world, response)]
        after = all_rows(guarded)
        problems += [f"{route.name}: a refusal changed {row}" for row in before ^ after]
        before = after
    assert problems == []


def _faults(route: Route, who: str, world: World, response: httpx2.Response) -> list[str]:
    """What is wrong with a refusal."""
    status = int(route.access[who])
    if response.status_code != status:
        return [f"{response.status_code} instead of {status}: {response.text[:200]}"]
    refused(response, status, CODES[status])
    return [f"shows {name}" for name in world.seen_in(response)]


async def test_who_may_is_served_and_sees_and_changes_nothing_of_others(
    guarded: Service, client: httpx2.Client
) -> None:
    stranger, problems = World(guarded, client), []  # whom nobody below has to do with
    await stranger.build()
    before = stranger.rows()
    for route in ROUTES:
        if route.path == INBOX:
            continue
        world = World(guarded, client)
        for who in CALLERS:
            if route.access[who] != "ok":
                continue
            if route.method != "GET":
                world = World(guarded, client)  # of the last one there may be nothing left
            response = world.call(who, route.method, route.address(world), **route.request(world))
            if response.status_code != route.ok:
                problems.append(f"{who}: {route.name}: {response.status_code}, not {route.ok}: {response.text[:200]}")
            shown = world.seen_in(response) - MAY_SEE.get(who, set())
            problems += [f"{who}: {route.name}: shows {name}" for name in shown | stranger.seen_in(response)]
    assert problems == []
    assert stranger.rows() == before


async def test_the_marks_are_seen_by_those_whose_they_are(guarded: Service, client: httpx2.Client) -> None:
    """Otherwise the tests above would prove nothing."""
    world = World(guarded, client)
    await world.build()
    shown: dict[str, set[str]] = {who: set() for who in MAY_SEE}
    for route in ROUTES:
        for who, seen in shown.items():
            if route.method == "GET" and route.access[who] == "ok":
                seen |= world.seen_in(world.call(who, "GET", route.address(world), **route.request(world)))
    assert shown == MAY_SEE
    assert {name for name, mark in world.marks.items() if any(mark in row for row in all_rows(guarded))} == set(
        world.marks
    )


async def test_an_inbox_opens_for_its_user_only(guarded: Service, client: httpx2.Client) -> None:
    world = World(guarded, client)
    (route,) = (route for route in ROUTES if route.path == INBOX)
    address = f"{guarded.url.replace('http', 'ws', 1)}{route.address(world)}"
    await world.build()
    before = all_rows(guarded)
    for who in CALLERS:
        token = world.headers[who].get("Authorization", " ").split(" ")[1]
        for place in (f"{address}?token={token}", address):
            protocols = [Subprotocol("bearer"), Subprotocol(token)] if place == address and token else None
            with connect(place, subprotocols=protocols, proxy=None) as socket:
                assert _outcome(socket) == route.access[who], f"{who} at {place}"
    assert all_rows(guarded) == before


def _outcome(socket: ClientConnection) -> str:
    """`ok`, or the code with which the server closed."""
    try:
        socket.send("ping")
        return {"pong": "ok"}[str(socket.recv(10))]
    except ConnectionClosed as closed:
        return str(closed.rcvd.code) if closed.rcvd is not None else "cut"
