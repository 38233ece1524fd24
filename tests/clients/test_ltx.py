"""Litestream's objects: what it writes is read, and whatever is changed in one is noticed."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path

import lz4.block  # type: ignore[import-untyped]
import orjson
import pytest

from tests.backups.ltx_objects import pages_of, rewrite
from tests.object_stores import program
from yral_chat.clients.ltx import LtxDamaged, LtxHeader, LtxReader
from yral_chat.db.files import load_driver

TRIALS = int(os.environ.get("DAMAGE_TRIALS", "300"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What the real Litestream makes of a database with texts and numbers in it, and of a change."""
    folder = tmp_path_factory.mktemp("ltx")
    path = folder / "some.db"
    replica = {"type": "file", "path": str(folder / "replica")}
    (folder / "config.yml").write_bytes(orjson.dumps({"dbs": [{"path": str(path), "replica": replica}]}))
    driver = load_driver()
    with closing(driver.connect(str(path), isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size=8192")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE said (id INTEGER PRIMARY KEY, text TEXT)")
        chance = random.Random(1)
        rows = [("".join(chance.choices("abcdefgh \n", k=chance.randrange(300))),) for _ in range(2000)]
        connection.executemany("INSERT INTO said (text) VALUES (?)", rows)
        _replicate(folder)
        connection.execute("INSERT INTO said (text) VALUES ('the last'), (zeroblob(200)), (zeroblob(300))")
        _replicate(folder)
    return sorted((folder / "replica").rglob("*.ltx"))


def _replicate(folder: Path) -> None:
    command = [program("litestream"), "replicate", "-once", "-config", str(folder / "config.yml")]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def read(data: bytes, size: int = 1000) -> LtxHeader:
    reader = LtxReader()
    for start in range(0, len(data), size):
        reader.feed(data[start : start + size])
    return reader.finish()


def test_what_litestream_writes_is_read_in_pieces_of_any_size(written: list[Path]) -> None:
    assert len(written) >= 2
    for path in written:
        data = path.read_bytes()
        headers = {read(data, size) for size in (1, 99, 4096, len(data))}
        assert len(headers) == 1
        header = headers.pop()
        assert path.name == f"{header.min_txid:016x}-{header.max_txid:016x}.ltx"
        assert header.page_size == 8192


def test_what_is_rewritten_as_it_writes_is_read(written: list[Path], tmp_path: Path) -> None:
    """So that what tests make of it is what it would make."""
    copy = tmp_path / written[0].name
    copy.write_bytes(written[0].read_bytes())
    assert rewrite(copy, b"the last", b"the last") >= 0
    assert read(copy.read_bytes()) == read(written[0].read_bytes())


def _damaged(data: bytes, chance: random.Random) -> Iterator[bytes]:
    while True:
        place = chance.randrange(len(data))
        yield data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]
        yield data[:place]
        yield data[:place] + data[place + 1 :]
        yield data[:place] + b"\x00" + data[place:]


def test_every_damage_is_noticed_but_what_unpacks_to_the_same(written: list[Path]) -> None:
    chance = random.Random(7)
    path = max(written, key=lambda path: path.stat().st_size)
    data = path.read_bytes()
    header, pages, harmless = read(data), pages_of(data), 0
    for _, damaged in zip(range(TRIALS), _damaged(data, chance), strict=False):
        try:
            assert read(damaged) == header
        except LtxDamaged:
            continue
        assert pages_of(damaged) == pages
        harmless += 1
    assert harmless <= TRIALS // 50


def test_what_is_read_after_any_bit_was_flipped_litestream_restores_as_it_was(
    written: list[Path], tmp_path: Path
) -> None:
    """Every bit: its decoder is stricter than ours, so that a page may unpack here and be refused there."""
    replica = tmp_path / "replica"
    shutil.copytree(next(path for path in written[0].parents if path.name == "replica"), replica)
    changed = max(replica.rglob("0/*.ltx"))
    data, whole = changed.read_bytes(), _restored(replica)
    read_all_the_same = list(filter(_is_read, _with_a_flipped_bit(data)))
    assert read_all_the_same  # zeros that are copied from other zeros
    for damaged in read_all_the_same:
        changed.write_bytes(damaged)
        assert _restored(replica) == whole


def _with_a_flipped_bit(data: bytes) -> Iterator[bytes]:
    for place, bit in product(range(len(data)), range(8)):
        yield data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def _is_read(data: bytes) -> bool:
    try:
        read(data, len(data))
    except LtxDamaged:
        return False
    return True


def _restored(replica: Path) -> bytes:
    to = replica.with_name("restored.db")
    command = [program("litestream"), "restore", "-o", str(to), replica.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    try:
        return to.read_bytes()
    finally:
        to.unlink()


def test_a_page_that_unpacks_to_too_much_takes_no_memory(written: list[Path]) -> None:
    data = written[0].read_bytes()
    bomb = lz4.block.compress(bytes(50_000_000), store_size=False)
    with pytest.raises(LtxDamaged):
        read(data[:100] + (1).to_bytes(4) + b"\x00\x01" + len(bomb).to_bytes(4) + bomb)


@pytest.mark.parametrize("data", [b"", b"LTX1", b"LTX1" + bytes(96), bytes(100), b"x" * 5000])
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(LtxDamaged):
        read(data)
