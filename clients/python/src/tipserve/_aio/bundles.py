"""The bundles that a server serves."""

from __future__ import annotations

from tipserve._aio.analysis import AsyncAnalysisCalls
from tipserve._proto import bundle_pb2
from tipserve.types import Bundle


class AsyncBundleCalls(AsyncAnalysisCalls):
    """The bundles that a server serves."""

    async def bundles(self) -> list[Bundle]:
        """Those that are loaded, the default first, and those that could be."""
        answer = await self._unary(self._bundles.ListBundles, bundle_pb2.ListBundlesRequest())
        return [Bundle._from(one) for one in answer.bundles]

    async def load_bundle(
        self, folder: str, *, make_default: bool = False, timeout: float = 3600.0
    ) -> Bundle:
        """Loads a bundle, and returns when it serves; one that serves already stays as it is.

        Needs the role admin. The server goes on loading if the call is given
        up.

        Args:
            folder: Name of its folder on the server, as `bundles` has it.
            make_default: Let it serve requests that name no bundle from now on.
            timeout: Seconds for the whole.
        """
        request = bundle_pb2.LoadBundleRequest(folder=folder, make_default=make_default)
        answer = await self._unary(self._bundles.LoadBundle, request, timeout=timeout)
        self._info = None  # the limits, and the default bundle
        return Bundle._from(answer)

    async def unload_bundle(self, bundle: str, *, timeout: float = 3600.0) -> None:
        """Unloads a bundle, and returns when all that it was given is answered.

        Needs the role admin. The server goes on if the call is given up.

        Args:
            bundle: Its name or fingerprint. The default one cannot be unloaded.
            timeout: Seconds for the whole.
        """
        request = bundle_pb2.UnloadBundleRequest(bundle=bundle)
        await self._unary(self._bundles.UnloadBundle, request, retry=False, timeout=timeout)
        self._info = None
