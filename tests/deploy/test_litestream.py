"""The configuration for a Litestream that somebody else runs beside the service: it is ours, and it works."""

import asyncio
import os
import re
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.backups.targets import Machine, Person, bucket, replicated
from tests.object_stores import ACCESS_KEY, BUCKET, SECRET_KEY, Rclone, program
from tests.test_documents import ROOT
from yral_chat.clients.backup_store import Target
from yral_chat.clients.litestream import Litestream
from yral_chat.db.files import load_driver

FILE = ROOT / "deploy/litestream/litestream.yml"


def test_it_is_what_the_service_sets_up_by_itself(tmp_path: Path) -> None:
    target = Target("the-bucket", "the/prefix", "http://127.0.0.1:9000", "eu-1", "key", "secret")
    ours = Litestream("litestream", tmp_path / "yral_chat.db", target, "", tmp_path).config()
    values = {
        "DATA_DIR": str(tmp_path), "BACKUP_BUCKET": "the-bucket", "BACKUP_PREFIX": "the/prefix",
        "BACKUP_REGION": "eu-1", "BACKUP_ENDPOINT_URL": "http://127.0.0.1:9000",
    }  # fmt: skip
    assert yaml.safe_load(re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], FILE.read_text())) == ours


@pytest.mark.long
def test_what_it_replicates_beside_a_service_it_restores(tmp_path: Path) -> None:
    with Rclone(tmp_path / "s3") as server:
        machine = Machine(tmp_path / "machine", bucket(server), LITESTREAM_ENABLED="false")
        environment = {
            "PATH": os.environ["PATH"], "DATA_DIR": str(machine.data), "BACKUP_BUCKET": BUCKET,
            "BACKUP_PREFIX": "chat", "BACKUP_REGION": "us-east-1", "BACKUP_ENDPOINT_URL": server.url,
            "LITESTREAM_ACCESS_KEY_ID": ACCESS_KEY, "LITESTREAM_SECRET_ACCESS_KEY": SECRET_KEY,
        }  # fmt: skip
        litestream, to = program("litestream"), tmp_path / "then.db"
        try:
            machine.start()
            person = Person(machine)
            person.say(machine, "before it runs")
            replicating = subprocess.Popen([litestream, "replicate", "-config", FILE], env=environment)
            try:
                person.say(machine, "and beside it")
                asyncio.run(replicated(machine))
                replicating.terminate()
                assert replicating.wait(60) == 0
            finally:
                replicating.kill()
        finally:
            machine.service.stop()
        restore = [litestream, "restore", "-config", str(FILE), "-o", str(to), str(machine.data / "yral_chat.db")]
        subprocess.run(restore, env=environment, check=True, timeout=60)
    with closing(load_driver().connect(str(to))) as connection:
        said = connection.execute("SELECT content FROM messages WHERE role = 'user' ORDER BY seq").fetchall()
    assert said == [(text,) for text in person.said]
