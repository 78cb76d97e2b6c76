"""A server, its bundles and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tipserve._proto import classify_pb2
from tipserve.types._bundle import BundleInfo
from tipserve.types._record import Record


@dataclass(frozen=True)
class ServerInfo(Record):
    """What is served, and within which limits."""

    version: str
    bundle: BundleInfo
    """The default one."""
    device: str
    dtype: str
    limits: Mapping[str, int]
    bundles: tuple[BundleInfo, ...] = ()
    """All that are loaded, the default first. Empty from servers that have one."""

    @classmethod
    def _from(cls, m: classify_pb2.ServerInfo) -> ServerInfo:
        return cls(
            version=m.version,
            bundle=BundleInfo._from(m.bundle),
            device=m.device,
            dtype=m.dtype,
            limits=dict(m.limits),
            bundles=tuple(BundleInfo._from(one) for one in m.bundles),
        )

    def bundle_of(self, given: str) -> BundleInfo:
        """The loaded bundle of a name or fingerprint; else the default one."""
        named = (one for one in self.bundles if given in (one.name, one.fingerprint))
        return next(named, self.bundle)
