"""Lines say what happened and never more."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from loguru import logger

from yral_chat.core.errors import StorageFull
from yral_chat.core.logging import (
    change_level,
    configure_logging,
    correlation_id,
    current_level,
    hashed,
    log,
    show_users,
    shown_user,
)
from yral_chat.core.trace_context import TraceContext, trace


class Lines:
    """Takes the place of standard error."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def __call__(self, line: bytes) -> None:
        self.written.append(line)

    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.written]

    def text(self) -> str:
        return b"".join(self.written).decode()


@pytest.fixture
def lines() -> Iterator[Lines]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Lines()
    logger.remove()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_json_line_has_the_event_its_fields_and_the_correlation_id(lines: Lines) -> None:
    configure_logging("INFO", "json", write=lines)
    token = correlation_id.set("request-1")
    log.info("turn.finished", turn_id="t1", tokens=12, outcome={"kind": "completed"})
    correlation_id.reset(token)
    [line] = lines.json()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "event": "turn.finished",
        "correlation_id": "request-1",
        "turn_id": "t1",
        "tokens": 12,
        "outcome": {"kind": "completed"},
    }
    assert lines.written[0].endswith(b"}\n")


def test_fields_cannot_replace_what_every_line_has(lines: Lines) -> None:
    configure_logging("INFO", "json", write=lines)
    log.info("real.event", event="forged", level="forged")
    [line] = lines.json()
    assert (line["event"], line["level"]) == ("real.event", "INFO")


@pytest.mark.parametrize("value", ["\ud800", {1: "a"}, 2**80, object(), b"\xff", ValueError("x")])
@pytest.mark.parametrize("style", ["json", "text"])
def test_a_line_is_written_whatever_a_field_holds(lines: Lines, style: Any, value: object) -> None:
    configure_logging("INFO", style, write=lines)
    log.info("odd.value", value=value, count=3)
    assert "odd.value" in lines.text()
    if style == "json":
        assert lines.json()[0]["count"] == 3


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_traceback_shows_no_values_of_variables(lines: Lines, style: Any) -> None:
    configure_logging("INFO", style, write=lines)

    def failing(secret: str) -> None:
        raise ZeroDivisionError(len(secret))

    try:
        failing("hunter2"[::-1] * 2)
    except ZeroDivisionError as error:
        log.opt(exception=error).error("request.failed")
    assert "ZeroDivisionError" in lines.text()
    assert "in failing" in lines.text()
    assert "2retnuh" not in lines.text()


def test_below_the_level_nothing_is_written(lines: Lines) -> None:
    configure_logging("WARNING", "json", write=lines)
    log.info("small.talk")
    logging.getLogger("somewhere").info("small talk")
    log.warning("large.talk")
    assert [line["event"] for line in lines.json()] == ["large.talk"]


def test_a_field_cannot_forge_a_second_line_of_text(lines: Lines) -> None:
    configure_logging("INFO", "text", write=lines)
    log.info("user.named", name="eve\n12:00:00.000 ERROR forged \x1b[31m")
    logging.getLogger("library").warning("first\nsecond {braces} %s", "\x1b[2J")
    assert lines.text().count("\n") == 2
    assert "\x1b" not in lines.text()


def test_text_is_coloured_only_on_demand(lines: Lines) -> None:
    configure_logging("INFO", "text", write=lines, coloured=True)
    log.warning("much.colour")
    assert "\x1b[33m" in lines.text()


def test_records_of_the_standard_library_come_through_the_same_sink(lines: Lines) -> None:
    configure_logging("INFO", "json", write=lines)
    logging.getLogger("some.library").warning("took %d {s}", 3)
    try:
        raise KeyError("lost")
    except KeyError:
        logging.getLogger("asyncio").exception("Task exception")
    first, second = lines.json()
    assert (first["event"], first["logger"], first["level"]) == ("took 3 {s}", "some.library", "WARNING")
    assert second["logger"] == "asyncio"
    assert "KeyError" in second["exception"]


def test_query_strings_in_the_server_messages_are_redacted(lines: Lines) -> None:
    configure_logging("INFO", "json", write=lines)
    message = '%s - "WebSocket %s" [accepted]'
    logging.getLogger("uvicorn.error").warning(
        message, "127.0.0.1:1", "/api/v1/chat/ws/inbox/u?token=aaa.bbb.ccc&since=3"
    )
    assert "aaa" not in lines.text()
    assert lines.json()[0]["event"] == '127.0.0.1:1 - "WebSocket /api/v1/chat/ws/inbox/u?[redacted]" [accepted]'


def test_the_server_finds_no_handler_for_its_own_access_log(lines: Lines) -> None:
    configure_logging("INFO", "json", write=lines)
    assert not logging.getLogger("uvicorn.access").hasHandlers()


@pytest.mark.parametrize(
    "name",
    [
        "sqlalchemy.engine.Engine",
        "websockets.server",
        "uvicorn.error",
        "aiohttp.client",
        "asyncio",
        "PIL.TiffImagePlugin",
        "psycopg",
        "opentelemetry.exporter",
    ],
)
def test_chatty_libraries_stay_quiet_even_at_the_lowest_level(lines: Lines, name: str) -> None:
    configure_logging("TRACE", "json", write=lines)
    logging.getLogger(name).debug("INSERT INTO messages VALUES ('a secret thought')")
    assert lines.written == []


def test_what_postgresql_says_of_rows_is_not_repeated(lines: Lines) -> None:
    configure_logging("TRACE", "json", write=lines)
    logging.getLogger("psycopg").warning("error ignored in rollback on %s: %s", "connection", "Key (name)=(Ada) exists")
    assert lines.written == []


def test_configuring_again_replaces_the_sink(lines: Lines) -> None:
    earlier = Lines()
    configure_logging("INFO", "json", write=earlier)
    configure_logging("INFO", "json", write=lines)
    log.info("only.once")
    assert earlier.written == []
    assert len(lines.written) == 1


def test_a_person_is_named_by_a_stable_hash() -> None:
    assert hashed("user-1") == hashed("user-1")
    assert hashed("user-1") != hashed("user-2")
    assert "user" not in hashed("user-1")


def test_a_hash_depends_on_the_key_that_was_kept() -> None:
    show_users("hashed", b"one")
    first = hashed("user-1")
    show_users("hashed", b"other")
    assert hashed("user-1") != first
    show_users("hashed", b"one")
    assert shown_user("user-1") == hashed("user-1") == first


def test_people_are_shown_as_the_operator_wants() -> None:
    show_users("plain")
    assert shown_user("user-1") == "user-1"
    show_users("none")
    assert shown_user("user-1") is None
    show_users("hashed")


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_line_has_the_trace_that_it_belongs_to(lines: Lines, style: Any) -> None:
    configure_logging("INFO", style, write=lines)
    token = trace.set(TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1))
    log.info("in.a.trace")
    trace.reset(token)
    assert "trace_id" in lines.text()
    assert "4bf92f3577b34da6a3ce929d0e0e4736" in lines.text()


def test_the_level_changes_for_ours_and_for_libraries(lines: Lines) -> None:
    configure_logging("WARNING", "json", write=lines)
    change_level("DEBUG")
    assert current_level() == "DEBUG"
    log.debug("now.seen")
    logging.getLogger("library").debug("so is this")
    change_level("ERROR")
    log.warning("not.any.more")
    logging.getLogger("library").warning("nor this")
    assert [line["event"] for line in lines.json()] == ["now.seen", "so is this"]


@pytest.mark.parametrize("style", ["json", "text"])
def test_the_text_of_a_foreign_exception_is_not_shown(lines: Lines, style: Any) -> None:
    configure_logging("TRACE", style, write=lines)
    thought = "a secret " + "thought"
    try:
        try:
            dict[str, str]()[thought]
        except KeyError as error:
            raise ExceptionGroup(thought, [ValueError(thought), StorageFull()]) from error
    except ExceptionGroup:
        log.exception("request.failed")
    assert thought not in lines.text()
    for kind in ("KeyError", "ValueError", "ExceptionGroup", "yral_chat.core.errors.StorageFull"):
        assert kind in lines.text()


def test_developers_see_the_text_of_foreign_exceptions(lines: Lines) -> None:
    configure_logging("INFO", "text", write=lines, with_error_texts=True)
    try:
        int("forty" + "-two")
    except ValueError:
        log.exception("request.failed")
    assert "invalid literal for int() with base 10: 'forty-two'" in lines.text()


def test_what_the_event_loop_says_of_a_lost_task_is_one_line(lines: Lines) -> None:
    configure_logging("INFO", "json", write=lines)
    logging.getLogger("asyncio").error(
        "Task exception was never retrieved\nfuture: <Task exception=KeyError('secret')>"
    )
    assert [line["event"] for line in lines.json()] == ["Task exception was never retrieved"]


def test_what_the_event_loop_says_of_a_failed_callback_has_no_arguments(lines: Lines) -> None:
    configure_logging("INFO", "json", write=lines)

    def failing(_: str) -> None:
        raise ValueError

    async def main() -> None:
        asyncio.get_running_loop().call_soon(failing, "my secret")
        await asyncio.sleep(0)

    asyncio.run(main())
    [line] = lines.json()
    assert line["event"].startswith("Exception in callback ")
    assert "failing" in line["event"]
    assert "my secret" not in lines.text()


UNCAUGHT = """
import sys, threading
from yral_chat.core import crashes
from yral_chat.core.logging import configure_logging


class Odd:
    def __del__(self):
        fail()


def fail():
    int("my secret")


configure_logging("INFO", "json")
crashes.catch_the_rest()
threading.Thread(target=fail, name="a-thread").start()
Odd()
fail()
"""


def test_what_nobody_catches_is_a_line_without_its_text() -> None:
    """Python itself would print it: in a thread, in a destructor, at the end of the process."""
    done = subprocess.run([sys.executable, "-c", UNCAUGHT], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["event"] for line in found} == {"thread.crashed", "object.crashed", "process.crashed"}
    assert all("ValueError" in line["exception"] and line["level"] == "ERROR" for line in found)
    assert "secret'" not in done.stderr
