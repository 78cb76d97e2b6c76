"""Certificates for tests: an authority and what it signs, valid for an hour."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOUR = datetime.timedelta(hours=1)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Authority:
    """Signs certificates for 127.0.0.1 and localhost."""

    def __init__(self, name: str = "test authority") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name(name)
        self.certificate = (
            self._builder(self.name, self.key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def _builder(self, subject, key, lasts=HOUR):
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * HOUR)
            .not_valid_after(now + lasts)
        )

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def revocations(self, *pairs: tuple[bytes, bytes]) -> bytes:
        """A list that revokes these certificates, as PEM."""
        now = datetime.datetime.now(datetime.timezone.utc)
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(now - HOUR)
            .next_update(now + HOUR)
        )
        for chain, _ in pairs:
            serial = x509.load_pem_x509_certificate(chain).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial)
            made = made.add_revoked_certificate(entry.revocation_date(now).build())
        made = made.add_extension(x509.CRLNumber(len(pairs) + 1), critical=False)
        return made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, lasts: datetime.timedelta = HOUR) -> tuple[bytes, bytes]:
        """A certificate and its key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            self._builder(_name(name), key, lasts)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


class Files:
    """A server's certificate, key and clients' authority in a folder."""

    def __init__(self, folder: Path, authority: Authority, name: str = "server") -> None:
        self.folder = folder
        self.cert, self.key, self.ca = (folder / n for n in ("cert.pem", "key.pem", "ca.pem"))
        self.write(*authority.issue(name), authority.pem)

    def write(self, cert: bytes | None = None, key: bytes | None = None, ca: bytes | None = None):
        """Replaces what is given."""
        for path, data in ((self.cert, cert), (self.key, key), (self.ca, ca)):
            if data is not None:
                path.write_bytes(data)

    def flags(self, *, clients: bool = False) -> list[str]:
        """For `tipserve serve`."""
        made = ["--tls-cert", str(self.cert), "--tls-key", str(self.key)]
        return [*made, "--tls-client-ca", str(self.ca)] if clients else made
