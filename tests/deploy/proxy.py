"""The real nginx with the configuration that we ship: only what deploy/nginx/site holds is this machine's."""

import datetime
import ipaddress
import os
import shutil
import signal
import ssl
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.ports import HeldPort
from tests.service import START_SECONDS, STOP_SECONDS
from tests.waiting import POLL_SECONDS, there, until

SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
ORIGIN = "https://app.test"


class Certificate:
    """Of `localhost`, made for this run, with a context that trusts it and nobody else."""

    def __init__(self, folder: Path) -> None:
        self.file, self.key = folder / "certificate.pem", folder / "key.pem"
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        certificate = builder.sign(key, hashes.SHA256())
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.context = ssl.create_default_context(cafile=self.file)


class PrivateNginx:
    """An nginx of our own in front of `upstream` (host:port), in `folder`. `edits` replace words of nginx.conf."""

    def __init__(
        self, binary: str, folder: Path, certificate: Certificate, upstream: str, edits: dict[str, str] | None = None
    ) -> None:
        self.certificate = certificate
        self.upstream = upstream
        self._binary = binary
        self._edits = edits or {}
        self._folder = folder
        self._configuration = folder / "configuration"
        self._held = HeldPort(), HeldPort()
        self.plain_port, self.tls_port = (held.number for held in self._held)
        self.url, self.plain_url = f"https://localhost:{self.tls_port}", f"http://localhost:{self.plain_port}"

    async def access_log(self, lines: int, of: str = "") -> str:
        """All of it, once so many have `of` in them: nginx writes one when it has done with a request, which may be
        later than whoever asked has all of the answer.
        """

        async def look() -> str:
            text = (self._folder / "access.log").read_text()
            found = [line for line in text.splitlines(keepends=True) if of in line and line.endswith("\n")]
            return text if len(found) >= lines else ""

        return await until(look, what=f"{lines} lines of {of or 'anybody'} in the access log")

    @property
    def error_log(self) -> str:
        return (self._folder / "error.log").read_text() + (self._folder / "stderr").read_text()

    def workers(self) -> set[int]:
        """Also those that are ending."""
        return {child.pid for child in psutil.Process(self._process.pid).children()}

    async def reload(self) -> set[int]:
        """As `nginx -s reload`; returns the old workers once the new one is there."""
        old = self.workers()
        self._process.send_signal(signal.SIGHUP)
        await until(there(lambda: bool(self.workers() - old)), what="a new worker")
        return old

    def __enter__(self) -> Self:
        shutil.copytree(SHIPPED, self._configuration, dirs_exist_ok=True)
        file = self._configuration / "nginx.conf"
        for shipped, ours in self._edits.items():
            assert shipped in file.read_text()
            file.write_text(file.read_text().replace(shipped, ours))
        self._write_site()
        assert self._starts(), f"nginx does not start:\n{self.error_log}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _write_site(self) -> None:
        user = "user root root;\n" if os.geteuid() == 0 else ""
        temporary = "".join(f"{name}_temp_path {self._folder}/temporary/{name};\n" for name in TEMPORARY)
        (self._folder / "temporary").mkdir(exist_ok=True)
        site = {
            "process": f"{user}worker_processes 1;\npid {self._folder}/pid;\n"
            f"error_log {self._folder}/error.log warn;\n",
            "http": f"access_log {self._folder}/access.log yral_chat;\n{temporary}map $http_origin $allowed_origin {{\n"
            f'default ""; "{ORIGIN}" $http_origin;\n}}\n',
            "upstream": f"server {self.upstream};\n",
            "plain": f"listen 127.0.0.1:{self.plain_port} default_server;\nserver_name localhost;\n",
            "tls": f"listen 127.0.0.1:{self.tls_port} ssl http2 default_server;\nserver_name localhost;\n"
            f"ssl_certificate {self.certificate.file};\nssl_certificate_key {self.certificate.key};\n",
        }
        shipped = {path.stem for path in (SHIPPED / "site").iterdir()}
        assert site.keys() == shipped, "deploy/nginx/site has another file"
        for name, text in site.items():
            (self._configuration / "site" / f"{name}.conf").write_text(text)

    def _starts(self) -> bool:
        with (self._folder / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [self._binary, "-p", self._folder, "-c", self._configuration / "nginx.conf", "-g", "daemon off;"],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )
        deadline = time.monotonic() + START_SECONDS
        pid_file = self._folder / "pid"
        while self._process.poll() is None:
            if pid_file.exists() and pid_file.read_text():  # written once it listens wherever it shall
                return True
            assert time.monotonic() < deadline, self.error_log
            time.sleep(POLL_SECONDS)
        return False
