"""One unit, one transaction: what fails fails alone, what is acknowledged is there."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from tests.db.conftest import add_influencer
from yral_chat.core.errors import NotFound, ServiceUnavailable, StorageFull
from yral_chat.db.backends import create_database
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.failures import DatabaseInUse
from yral_chat.db.migrations import migrate


async def ids(database: Database) -> set[str]:
    found = await database.read(lambda uow: uow.influencers.list_listed(1000, 0))
    return {influencer.id for influencer in found}


async def test_one_failing_unit_of_a_group_fails_alone(database: Database) -> None:
    gate = threading.Event()
    blocked = asyncio.ensure_future(database.write(lambda _: gate.wait(10)))  # keeps the writer, so that a group forms

    def add_and_fail(uow: UnitOfWork) -> None:
        add_influencer(uow, "lost")
        raise NotFound("on purpose")

    def add(uow: UnitOfWork, name: str) -> str:
        add_influencer(uow, name)
        return name

    group = [asyncio.ensure_future(database.write(add, f"kept{number}")) for number in range(5)]
    group.insert(2, asyncio.ensure_future(database.write(add_and_fail)))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    gate.set()
    await blocked
    results = await asyncio.gather(*group, return_exceptions=True)
    assert [type(result) for result in results].count(NotFound) == 1
    assert await ids(database) == {f"kept{number}" for number in range(5)}


async def test_a_statement_that_fails_leaves_the_others_of_its_group(database: Database) -> None:
    await database.write(add_influencer, "taken")
    gate = threading.Event()
    blocked = asyncio.ensure_future(database.write(lambda _: gate.wait(10)))
    group = [asyncio.ensure_future(database.write(add_influencer, name)) for name in ("a", "taken", "b")]
    await asyncio.sleep(0)
    gate.set()
    await blocked
    results = await asyncio.gather(*group, return_exceptions=True)
    assert isinstance(results[1], Exception)
    assert await ids(database) == {"taken", "a", "b"}


async def test_callbacks_run_after_commit_in_order_and_not_for_failed_units(database: Database) -> None:
    seen: list[str] = []

    def note(uow: UnitOfWork, name: str, *, fails: bool = False) -> None:
        uow.after_commit(lambda: seen.append(name))
        if fails:
            raise NotFound

    await database.write(note, "first")
    with pytest.raises(NotFound):
        await database.write(note, "failed", fails=True)
    await database.write(note, "second")
    assert seen == ["first", "second"]


async def test_callbacks_run_when_the_caller_has_left(database: Database) -> None:
    done = asyncio.Event()
    gate = threading.Event()

    def unit(uow: UnitOfWork) -> None:
        gate.wait(10)
        add_influencer(uow, "stored")
        uow.after_commit(done.set)

    caller = asyncio.ensure_future(database.write(unit))
    await asyncio.sleep(0)
    caller.cancel()
    gate.set()
    async with asyncio.timeout(10):
        await done.wait()
    assert await ids(database) == {"stored"}


async def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(Exception, match=r"(?i)read.?only|readonly"):
        await database.read(add_influencer, "sneaky")
    assert await ids(database) == set()


async def test_a_read_sees_one_snapshot(database: Database) -> None:
    looked, written = threading.Event(), threading.Event()

    def look_twice(uow: UnitOfWork) -> tuple[int, int]:
        before = uow.influencers.count_listed()
        looked.set()
        written.wait(10)
        return before, uow.influencers.count_listed()

    reading = asyncio.ensure_future(database.read(look_twice))
    await asyncio.to_thread(looked.wait, 10)
    await database.write(add_influencer, "meanwhile")
    written.set()
    assert await reading == (0, 0)


async def test_concurrent_units_of_one_row_lose_no_update(database: Database) -> None:
    def unit(uow: UnitOfWork) -> int:
        return uow.events.add("somebody", "c", "e", {})

    numbers = await asyncio.gather(*(database.write(unit) for _ in range(50)))
    assert sorted(numbers) == list(range(1, 51))


async def test_a_closed_database_refuses(database_url: str) -> None:
    database = create_database(database_url)
    await database.open()
    await database.close()
    with pytest.raises(ServiceUnavailable):
        await database.read(lambda uow: uow.influencers.count_listed())


async def test_the_second_process_is_refused_until_the_first_has_left(database_url: str) -> None:
    first, second = create_database(database_url), create_database(database_url)
    first.lock()
    with pytest.raises(DatabaseInUse):
        second.lock()
    await first.close()
    second.lock()
    await second.close()


async def test_a_full_disk_fails_sends_and_not_the_others(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/small.db"
    migrate(url)
    database = create_database(url)
    await database.open()
    try:
        await database.write(add_influencer, "early")

        def limit_pages(uow: UnitOfWork) -> None:
            connection = uow.influencers._executor.connection
            used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={used + 2}")

        await database.write(limit_pages)
        gate = threading.Event()
        blocked = asyncio.ensure_future(database.write(lambda _: gate.wait(10)))
        group = [
            asyncio.ensure_future(database.write(add_influencer, "small")),
            asyncio.ensure_future(database.write(add_influencer, "large", system_instructions="x" * 100_000)),
            asyncio.ensure_future(database.write(lambda uow: uow.influencers.update("early", category="changed"))),
        ]
        await asyncio.sleep(0)
        gate.set()
        await blocked
        small, large, changed = await asyncio.gather(*group, return_exceptions=True)
        assert isinstance(large, StorageFull)
        assert (small, changed) == (None, None), "the units beside it fit, and are done"
        assert await ids(database) == {"early", "small"}
    finally:
        await database.close()
    with sqlite3.connect(tmp_path / "small.db") as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()
