"""The files of `[tls]`, made for a test."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import trustme

LONG_AGO: Final = datetime.now(UTC) - timedelta(days=2)


class Files:
    """The files of `[tls]`: what the daemon shows, and whose clients it takes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca, self.client_ca = trustme.CA(), trustme.CA()
        self.certificate, self.key, self.clients = (folder / name for name in ("c.pem", "k.pem", "ca.pem"))
        self.show(self.ca)
        self.client_ca.cert_pem.write_to_path(self.clients)

    def ca_file(self) -> Path:
        """Write the CA that clients are to trust."""
        path = self.folder / "daemon-ca.pem"
        self.ca.cert_pem.write_to_path(path)
        return path

    def client(self, *names: str) -> tuple[Path, Path]:
        """Write a client's certificate and its key."""
        leaf = self.client_ca.issue_cert(*names)
        certificate, key = self.folder / "client.pem", self.folder / "client.key"
        leaf.cert_chain_pems[0].write_to_path(certificate)
        leaf.private_key_pem.write_to_path(key)
        return certificate, key

    def by_openssl(self, name: str) -> trustme.LeafCert:
        """Return a client's certificate with a name as openssl writes it."""
        ca, ca_key = self.folder / "by-ca.pem", self.folder / "by-ca.key"
        self.client_ca.cert_pem.write_to_path(ca)
        self.client_ca.private_key_pem.write_to_path(ca_key)
        key, certificate = self.folder / "by.key", self.folder / "by.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "1", "-subj", "/CN=x", "-addext", f"subjectAltName={name}", "-CA", ca, "-CAkey", ca_key,
             "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        return trustme.LeafCert(key.read_bytes(), certificate.read_bytes(), [])

    def show(self, ca: trustme.CA, *names: str, **more: Any) -> None:
        """Let the daemon show a certificate of `ca`."""
        leaf = ca.issue_cert(*(names or ("localhost", "127.0.0.1")), **more)
        # One after the other, as whoever renews certificates does it.
        self.certificate.write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
        self.key.write_bytes(leaf.private_key_pem.bytes())

    def table(self, *, mutual: bool = False) -> str:
        client_ca = f'client_ca = "{self.clients}"\n' if mutual else ""
        return f'[tls]\ncertificate = "{self.certificate}"\nkey = "{self.key}"\n{client_ca}'
