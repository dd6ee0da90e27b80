"""Keys of the local control plane: a CA, two server certificates, the service-account key, the admin's token."""

import datetime as dt
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stack.folders import write_private

# A local platform may exist for years, and no process renews its certificates.
LIFETIME = dt.timedelta(days=3650)
NAMES = ("localhost", "kubernetes.default.svc", "127.0.0.1", "10.96.0.1")


def make_keys(folder: Path, admin_token: str) -> None:
    """Create every key once. The token file is written last, as the mark that all keys exist."""
    if (folder / "tokens.csv").exists():
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    _write(folder / "ca.crt", authority.cert_pem)
    until = dt.datetime.now(dt.UTC) + LIFETIME
    for name in ("apiserver", "etcd"):
        server = authority.issue_cert(*NAMES, common_name=name, not_after=until, key_type=trustme.KeyType.ECDSA)
        _write(folder / f"{name}.key", server.private_key_pem)
        # Write only the first certificate: the authority signs without an intermediate.
        _write(folder / f"{name}.crt", server.cert_chain_pems[0])
    account = ec.generate_private_key(ec.SECP256R1())
    key = account.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(folder / "sa.key", key.decode())
    public = account.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_private(folder / "sa.pub", public.decode())
    write_private(folder / "tokens.csv", f'{admin_token},admin,admin,"system:masters"\n')


def _write(path: Path, pem: trustme.Blob) -> None:
    write_private(path, pem.bytes().decode())
