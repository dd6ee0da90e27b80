"""The documented login checks PostgreSQL's certificate and connects, with the image's variables and libpq's wheel."""

import contextlib
import os
import re
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from stack.platform import Platform
from stack.services.pki import make_keys
from tests.deploy.helm import EXAMPLES, ROOT, Json
from tests.deploy.installing import DOCUMENT, block

CONNECT = "import psycopg, sys; psycopg.connect(sys.argv[1], connect_timeout=20).close()"


@dataclass(frozen=True)
class Server:
    """A PostgreSQL that speaks TLS, with a certificate of a CA that nobody else knows."""

    url: str
    authority: Path

    def connect(self, query: str, **environment: str) -> str:
        """Connect in a process with these variables only; return what went wrong."""
        # The home as in the image: there, and without any certificate.
        variables = {"PATH": os.environ["PATH"], "HOME": str(self.authority.parent), **environment}
        command = [sys.executable, "-c", CONNECT, f"{self.url}?{query}"]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False).stderr


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


class _Gate(socketserver.BaseRequestHandler):
    """Ends TLS, and passes what is inside on to PostgreSQL: the local one is built without."""

    server: "_Gates"

    def handle(self) -> None:
        # PostgreSQL's way: the client asks in the clear whether there is TLS.
        assert self.request.recv(8) == b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
        self.request.sendall(b"S")
        try:
            inside = self.server.context.wrap_socket(self.request, server_side=True)
        except OSError:
            # The client does not trust the certificate.
            return
        with inside, socket.create_connection(self.server.upstream) as upstream:
            answers = threading.Thread(target=_pump, args=(upstream, inside))
            answers.start()
            _pump(inside, upstream)
            answers.join()


class _Gates(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, upstream: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Gate)
        self.context = context
        self.upstream = upstream


@pytest.fixture(scope="module")
def server(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    keys = tmp_path_factory.mktemp("tls") / "keys"
    make_keys(keys, "no-token")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # One of the two certificates that the local control plane has, made out to the loopback.
    context.load_cert_chain(keys / "etcd.crt", keys / "etcd.key")
    url = urlsplit(platform.endpoints.database_superuser_url)
    with _Gates(context, (str(url.hostname), int(url.port or 0))) as gates:
        threading.Thread(target=gates.serve_forever).start()
        login = url.netloc.rpartition("@")[0]

        yield Server(f"postgresql://{login}@127.0.0.1:{gates.server_address[1]}{url.path}", keys / "ca.crt")

        gates.shutdown()


def documented_query() -> str:
    (query,) = re.findall(r"--from-literal=url='postgresql://[^?']+\?([^']+)'", DOCUMENT)
    return str(query)


def test_the_documented_login_trusts_the_images_bundle(server: Server, tmp_path: Path) -> None:
    variable = re.search(r"SSL_CERT_FILE=(\S+)", (ROOT / "deploy" / "Dockerfile").read_text())
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(server.authority.read_text())

    assert variable is not None
    # Where Debian keeps it; tests/deploy/prove_dockerfile.sh looks that it is there.
    assert variable.group(1) == "/etc/ssl/certs/ca-certificates.crt"
    assert "certificate verify failed" in server.connect(documented_query())
    # As if the image's bundle had the CA.
    assert server.connect(documented_query(), SSL_CERT_FILE=str(bundle)) == ""


def test_a_ca_of_ones_own_is_trusted_where_it_is_mounted(server: Server) -> None:
    query = documented_query().replace("&sslrootcert=system", "")

    assert "root.crt" in server.connect(query)
    assert server.connect(query, PGSSLROOTCERT=str(server.authority)) == ""


def test_another_ca_is_not_trusted(server: Server, tmp_path: Path) -> None:
    make_keys(tmp_path / "other", "no-token")

    said = server.connect("sslmode=verify-full", PGSSLROOTCERT=str(tmp_path / "other" / "ca.crt"))

    assert "certificate verify failed" in said


def mounted(worker: Json) -> list[str]:
    """Return the variables that name a file, if a volume is mounted where it lies."""
    folders = {mount["mountPath"]: mount["name"] for mount in worker["extraVolumeMounts"]}
    volumes = {volume["name"] for volume in worker["extraVolumes"]}
    files = {each["name"]: str(Path(each["value"]).parent) for each in worker["extraEnv"] if each["value"][0] == "/"}
    return [name for name, folder in files.items() if folders.get(folder) in volumes]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_mounts_the_ca_of_postgresql(path: Path) -> None:
    worker = yaml.safe_load(path.read_text())["worker"]

    assert mounted(worker) == ["PGSSLROOTCERT"]
    assert {"name": "PGSSLMODE", "value": "verify-full"} in worker["extraEnv"]


def test_the_document_mounts_it_likewise() -> None:
    assert mounted(yaml.safe_load(block("yaml", "PGSSLROOTCERT"))["worker"]) == ["PGSSLROOTCERT"]
