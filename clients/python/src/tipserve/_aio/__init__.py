"""The asyncio client's methods: the source that the blocking client's are generated from.

Only what both clients do stands here. Where they differ (tasks or threads), it
is behind `tipserve._tasks`, whose counterpart is `tipserve._threads`.
`generate.py` writes `tipserve._sync` from this package.
"""
