"""What a version's examples say of it, and which pictures to label next."""

from __future__ import annotations

from tipserve import _suggest as suggest
from tipserve._aio.caches import AsyncCacheCalls
from tipserve._arrays import Color
from tipserve._proto import analysis_pb2
from tipserve._sources import items_of
from tipserve._tasks import AnyItems, collected, uploading
from tipserve.types import Analysis, Drift, Suggestions, SuggestStrategy


class AsyncAnalysisCalls(AsyncCacheCalls):
    """What a version's examples say of it, and which pictures to label next."""

    async def analyze(
        self,
        cache: str,
        *,
        list_limit: int = 0,
        duplicate_similarity: float | None = None,
        draws: int = 0,
        seed: int = 0,
        precision: float | None = None,
        timeout: float | None = None,
    ) -> Analysis:
        """What a version's own examples say about it, each left out in turn.

        How accuracy grows with examples, which classes are confused, which
        would gain most by more examples, which examples are probably
        mislabelled and which are nearly the same; `advice` says it in one
        sentence. Takes seconds.

        Args:
            cache: Which version.
            list_limit: Most entries of each list. Default 50.
            duplicate_similarity: Cosine from which two examples are
                near-duplicates. Default: by the examples themselves.
            draws: Random subsets at each point of the learning curve. Default 5.
            seed: Of these subsets.
            precision: What each class's `precision_threshold` is for. Default 0.95.
            timeout: Seconds for the whole; default: the client's.
        """
        request = analysis_pb2.AnalyzeVersionRequest(
            cache=cache,
            list_limit=list_limit,
            duplicate_similarity=duplicate_similarity,
            draws=draws,
            seed=seed,
            precision=precision,
        )
        answer = await self._unary(self._analysis.AnalyzeVersion, request, timeout=timeout)
        return Analysis._from(answer)

    async def drift(self, cache: str) -> Drift:
        """How what a version is asked of late differs from its examples.

        Counted since the version was loaded into the server's memory.
        """
        request = analysis_pb2.GetDriftRequest(cache=cache)
        return Drift._from(await self._unary(self._analysis.GetDrift, request))

    async def suggest_examples(
        self,
        pictures: AnyItems,
        cache: str = "",
        *,
        count: int = 0,
        strategy: SuggestStrategy | None = None,
        duplicate_similarity: float | None = None,
        seed: int = 0,
        bundle: str = "",
        color: Color = "rgb",
        timeout: float | None = None,
    ) -> Suggestions:
        """Which of many unlabelled pictures to label first. Near-duplicates count once.

        Args:
            pictures: As for `classify`.
            cache: The version whose examples are labelled already; none: nothing
                is.
            count: How many to suggest. Default 20.
            strategy: "typical" pictures of groups without a label, or those on
                which the version is undecided ("margin"). Default: by how many
                examples the classes have.
            duplicate_similarity: Cosine from which two pictures are
                near-duplicates. Default: by the pictures themselves.
            seed: Of the clustering.
            bundle: Name or fingerprint of the bundle that encodes the pictures
                where no version is named; default: the server's.
            color: The order of the channels of arrays; "bgr" is OpenCV's.
            timeout: Seconds for the whole; default: no bound.
        """
        config = suggest.suggest_config(
            cache,
            count=count,
            strategy=strategy,
            duplicate_similarity=duplicate_similarity,
            seed=seed,
            bundle=bundle,
        )
        pool = items_of(await collected(pictures))
        repeatable = iter(pool) is not pool
        encoder = await self._encoder(color)

        async def attempt(left: float | None) -> Suggestions:
            messages = suggest.PoolMessages(pool, encoder, config)
            async with uploading(
                lambda sent: self._analysis.SuggestExamples.future(
                    sent, timeout=left, metadata=self._metadata
                ),
                iter(messages),
                one_response=True,
            ) as call:
                response = await call.response()
            return Suggestions._from(response, messages.rejected)

        return await self._upload(attempt, timeout, repeatable)
