"""Statements that the threads of the database share."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from yral_chat.db.execution import PageStatement
from yral_chat.db.tables import conversations

THREADS = 4


@pytest.fixture(autouse=True)
def _threads_take_turns_all_the_time() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_whoever_needs_a_statement_first_gets_it_whole() -> None:
    """After each start the readers ask for their first pages at once."""
    begun = threading.Barrier(THREADS)

    def text_of(statement: PageStatement) -> str:
        begun.wait(30)
        return statement.on("sqlite")[0]

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in range(100):
            statement = PageStatement(select(conversations.c.id, conversations.c.message_count))
            texts = set(threads.map(text_of, [statement] * THREADS))
            assert texts == {statement.on("sqlite")[0]}
            assert "json_group_array" in texts.pop()
