"""A stub of S3, since no real server at hand refuses like these: it has one answer to what is written."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

import httpx2

from tests.client import PLAIN
from tests.object_stores import Rclone


class Refusing:
    """Answers `status` with the error `code` for as long as the `with`.

    In front of a real server it refuses conditional writes only and forwards the rest, whose signatures the real one
    checks: they are about the host that was asked, so this is sent along.
    """

    def __init__(self, status: int, code: str, *, in_front_of: Rclone | None = None) -> None:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                is_conditional = "If-None-Match" in self.headers or "If-Match" in self.headers
                if in_front_of is None or is_conditional:
                    self.reply(status, {}, f"<Error><Code>{code}</Code></Error>".encode())
                    return
                given = httpx2.request(
                    self.command,
                    in_front_of.url + self.path,
                    headers=dict(self.headers),
                    content=body,
                    verify=PLAIN,
                )
                self.reply(given.status_code, dict(given.headers), given.content)

            def reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "content-encoding", "transfer-encoding"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            # The names are those of http.server.
            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                """Not into the output of the tests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
