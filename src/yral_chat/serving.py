"""One serving process: binds, tells where it is, and on a signal drains before it stops listening."""

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import FrameType

import uvicorn
from loguru import logger

from yral_chat.connections import Bounds, Sweeper, bounded_by
from yral_chat.core.config import Settings
from yral_chat.main import create_app
from yral_chat.middleware.below import RefusalsBelow
from yral_chat.resources import Resources
from yral_chat.transports import most_connections

# After draining, what still hangs on a connection (a stuck reader) is cut.
CUT_SECONDS = 5
MAX_FRAME_BYTES = 4096  # of a client's WebSocket frame; contract section 10.1
# What the kernel keeps until we accept it; beyond it refuses by itself.
BACKLOG = 2048
TICKS_PER_SWEEP = 10  # uvicorn ticks ten times a second
# A chat in the terminal that ends in the middle of a reply does not wait for it; the next start goes on with it.
GUEST_DRAIN_SECONDS = 2


class DrainingServer(uvicorn.Server):
    """uvicorn closes its listeners as soon as a signal comes; this one goes on answering until the drain is over.

    A second signal hands running replies back at once, a third one cuts everything.
    The process ends with status 0, as a service manager expects.
    """

    def __init__(self, config: uvicorn.Config, resources: Resources, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._resources = resources
        self._on_ready = on_ready
        self._drain: asyncio.Task[None] | None = None
        self._is_hurried = False
        self._sweeper = Sweeper(self.server_state.connections, resources.settings.slow_client_seconds)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _keep_what_is_loaded()
            self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_PER_SWEEP == 0:
            self._sweeper.sweep(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        if self._drain is None:
            logger.info("server.draining", signal=signal.Signals(sig).name)
            self._drain = asyncio.get_running_loop().create_task(self._drain_and_exit())
        elif not self._is_hurried:
            # Somebody is impatient: what runs is handed back, and everybody still gets an answer.
            self._is_hurried = True
            self._resources.engine.hand_back()
        else:
            self.force_exit = self.should_exit = True

    async def _drain_and_exit(self) -> None:
        try:
            await self._resources.drain()
        finally:
            self.should_exit = True


class GuestServer(DrainingServer):
    """Served inside of a program that has its own use for signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _keep_what_is_loaded() -> None:
    """From here on the garbage collector looks at what requests make: a round over all modules stops them for 0.1 s."""
    gc.collect()
    gc.freeze()
    gc.enable()


def bind(settings: Settings) -> tuple[socket.socket, Settings]:
    """The listening socket, and the settings with the address that clients reach. Raises OSError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(False)
    port = listener.getsockname()[1]
    update: dict[str, object] = {"port": port}
    if settings.public_base_url is None:
        update["public_base_url"] = f"http://{reachable_host(settings.host)}:{port}"
    return listener, settings.model_copy(update=update)


@contextmanager
def _address_told(settings: Settings) -> Iterator[None]:
    """While the block runs, commands beside the server find its address in the data folder."""
    path = address_path(settings)
    try:
        path.write_text(f"http://{reachable_host(settings.host)}:{settings.port}\n", encoding="ascii")
    except OSError as error:  # whoever needs it is told what to set
        logger.warning("server.address_not_told", error=error.strerror)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


def address_path(settings: Settings) -> Path:
    """The file in which a running server says where it listens; that of one that was killed is left."""
    return settings.data_dir / "server.address"


def reachable_host(host: str) -> str:
    """The host for a URL on this machine: a wildcard becomes loopback, an IPv6 address gets its brackets."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{host}]" if ":" in host else host


def find_server(settings: Settings) -> str:
    """Where the running server says that it listens; one on another host, with another data folder, says nothing."""
    try:
        return address_path(settings).read_text(encoding="ascii").strip()
    except OSError:
        return f"http://{reachable_host(settings.host)}:{settings.port}"


async def serve(
    settings: Settings,
    listener: socket.socket,
    on_ready: Callable[[Resources], None],
    build: Callable[[Settings], Resources] = Resources,
) -> None:
    """Serves until a signal. Raises what `Resources.open` raises, before anything is heard."""
    resources = build(settings)
    await resources.open()
    with _address_told(settings):
        await DrainingServer(_config(settings, resources), resources, lambda: on_ready(resources)).serve([listener])


@asynccontextmanager
async def serving_here(settings: Settings) -> AsyncIterator[Resources]:
    """Serves on a free port of loopback while the block runs; `resources.settings.port` tells which.

    Raises as `serve`.
    """
    # Stored addresses of pictures stay those of the usual server.
    changes = {"public_base_url": settings.base_url, "host": "127.0.0.1", "port": 0}
    listener, settings = bind(settings.model_copy(update=changes))
    resources = Resources(settings)
    await resources.open()
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    server = GuestServer(_config(settings, resources), resources, lambda: ready.set_result(None))
    serving = asyncio.create_task(server.serve([listener]))
    try:
        await asyncio.wait((ready, serving), return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            with _address_told(settings):
                yield resources
    finally:
        await resources.engine.drain(GUEST_DRAIN_SECONDS)
        server.should_exit = True
        await serving


def _config(settings: Settings, resources: Resources) -> uvicorn.Config:
    metrics = resources.metrics
    bounds = Bounds(
        most_connections(settings.max_connections),
        settings.slow_client_seconds,
        metrics.overload_refused,
        RefusalsBelow(settings, metrics).answer,
    )
    return uvicorn.Config(
        create_app(settings, resources),
        lifespan="on",
        http=bounded_by(bounds),
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME_BYTES,
        ws_ping_interval=settings.ws_ping_seconds,
        ws_ping_timeout=settings.ws_ping_seconds,
        ws_per_message_deflate=False,  # a deflate window would double the memory of an idle socket
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=CUT_SECONDS,
        backlog=BACKLOG,
    )
