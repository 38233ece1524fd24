"""A PostgreSQL server whose log goes to a bucket by pgBackRest, with the files of deploy/postgres."""

import datetime
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.object_stores import ACCESS_KEY, SECRET_KEY, Rclone
from tests.programs import STOP_SECONDS, PrivatePostgres
from tests.test_documents import ROOT

FILES = ROOT / "deploy/postgres"
COMMAND_SECONDS = 180


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of loopback that nobody has signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(pem))
    paths[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return paths


class SecureRclone(Rclone):
    """The same by HTTPS, without which pgBackRest talks to no bucket."""

    def _command(self) -> tuple[list[str], str]:
        command, marker = super()._command()
        certificate, key = make_certificate(self._folder)
        return [*command, "--cert", str(certificate), "--key", str(key)], marker

    @property
    def port(self) -> str:
        return self.url.rsplit(":", 1)[1]


class ArchivedPostgres(PrivatePostgres):
    """`environment` is what stands for the places and keys that the files of deploy/postgres leave to people."""

    def __init__(self, binaries: Path, bucket: SecureRclone) -> None:
        super().__init__(binaries)
        self.bucket = bucket

    @property
    def data(self) -> Path:
        return self._folder / "data"

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def url(self) -> str:
        return self._url("postgres")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PGBACKREST_CONFIG": str(self._folder / "pgbackrest.conf"),
            "PGBACKREST_REPO1_S3_BUCKET": self.bucket.bucket.name,
            "PGBACKREST_REPO1_S3_ENDPOINT": "127.0.0.1",
            "PGBACKREST_REPO1_STORAGE_HOST": "127.0.0.1",
            "PGBACKREST_REPO1_STORAGE_PORT": self.bucket.port,
            "PGBACKREST_REPO1_STORAGE_VERIFY_TLS": "n",
            "PGBACKREST_REPO1_S3_KEY": ACCESS_KEY,
            "PGBACKREST_REPO1_S3_KEY_SECRET": SECRET_KEY,
            "PGBACKREST_PG1_PATH": str(self.data),
            "PGBACKREST_PG1_PORT": str(self._port.number),
            "PGBACKREST_PG1_SOCKET_PATH": str(self._folder),
            "PGBACKREST_PG1_USER": "tester",
            "PGBACKREST_LOCK_PATH": str(self._folder / "lock"),
            "PGBACKREST_LOG_LEVEL_FILE": "off",
            "PGBACKREST_JOB_RETRY": "0",  # what is damaged stays so
            "PGHOST": str(self._folder),
            "PGPORT": str(self._port.number),
            "PGUSER": "tester",
            "PGDATABASE": "postgres",
            "PGPASSWORD": self._password,
        }

    def _command(self) -> list[str | Path]:
        self._environment = self.environment
        for name in ("pgbackrest.conf", "restore-aside.sh"):  # where the user of the server can read them
            shutil.copy(FILES / name, self._folder)
        lines = re.findall(r"^(\w+) = '?(.*?)'?$", (FILES / "postgresql.conf").read_text(), re.M)
        options = [part for name, value in lines for part in ("-c", f"{name}={value}")]
        return [*super()._command(), "-c", f"unix_socket_directories={self._folder}", *options]

    def as_its_user(self, name: str) -> str:
        """A command that runs a file of deploy/postgres as the user of the server, with what it needs to know."""
        given = {**self.environment, "FOLDER": str(self.folder), "HOME": str(self.folder)}
        words = [f"{key}={value}" for key, value in given.items()]
        who = []
        if self._user is not None:
            user, group = str(self._user.pw_uid), str(self._user.pw_gid)
            who = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups"]
        return shlex.join([*who, "env", *words, str(self.folder / name)])

    def stop(self) -> None:
        self._server.send_signal(signal.SIGINT)  # "fast": it archives what is left
        self._server.wait(STOP_SECONDS)

    def start(self) -> None:
        """Again."""
        self._server = self._start()

    def run(self, script: str, **more: str) -> str:
        """What somebody does on a shell of this machine as the user of the server; `systemctl` is us."""
        output = ""
        more |= dict(re.findall(r'^([A-Z]+)="(.*)"$', script, re.M))  # one shell would keep what is set in it
        for part in re.split(r"^(systemctl \w+) postgresql$", script, flags=re.M):
            match part:
                case "systemctl stop":
                    self.stop()
                case "systemctl start":
                    self.start()
                case "systemctl restart":
                    self.stop()
                    self.start()
                case _:
                    output += self._shell(part, more)
        return output

    def _shell(self, script: str, more: dict[str, str]) -> str:
        done = subprocess.run(
            [shutil.which("bash") or "bash", "-euo", "pipefail", "-c", script],
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder), **self.environment, **more},
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout
