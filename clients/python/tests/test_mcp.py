"""The MCP server, driven by the mcp package's own client over standard input and output."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from fake_server import numbered
from test_create import sent_examples, versioned

from tipserve._proto import analysis_pb2, cache_pb2, classify_pb2

mcp = pytest.importorskip("mcp", reason="the mcp package is not installed")
if not hasattr(mcp, "Client"):
    pytest.skip("mcp 2 is needed", allow_module_level=True)


@pytest.fixture
def root(tmp_path):
    for name in ("cat/0.jpg", "cat/1.jpg", "dog/2.jpg"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "root" / "cat" / "out.jpg").symlink_to(tmp_path / "secret.txt")
    return tmp_path / "root"


def drive(fake, root, use, *options):
    """Runs `use` with a client of a server of its own process."""
    parameters = mcp.StdioServerParameters(
        command=sys.executable,
        args=["-m", "tipserve.mcp", "--server", fake.address, "--root", str(root), *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    async def main():
        async with mcp.Client(parameters, read_timeout_seconds=60) as client:
            return await use(client)

    return asyncio.run(main())


def text(answer):
    return "".join(part.text for part in answer.content)


def test_a_model_finds_uses_makes_and_corrects_a_classifier(fake, root):
    fake.unary["ListCaches"] = lambda request, context: cache_pb2.ListCachesResponse(
        caches=[cache_pb2.Cache(name="caches/pets", version_count=2, aliases={"stable": 1})]
    )
    created, added = [], []
    fake.create = versioned(created)

    def add(requests, context):
        added.append(list(requests))
        version = cache_pb2.Version(name="caches/pets/versions/2", version=2)
        yield cache_pb2.AddExamplesResponse(version=version)

    fake.add = add

    async def use(client):
        tools = {one.name: one for one in (await client.list_tools()).tools}
        assert set(tools) == {
            *("list_classifiers", "describe_classifier", "classify", "evaluate", "drift"),
            *("create_classifier", "correct"),
        }
        schema = tools["classify"].input_schema
        assert set(schema["required"]) == {"classifier", "pictures"}
        assert "below the root folder" in tools["classify"].description
        listed = await client.call_tool("list_classifiers", {})
        assert '"stable"' in text(listed) and "pets" in text(listed)
        found = await client.call_tool("classify", {"classifier": "pets", "pictures": ["cat"]})
        assert "cat/0.jpg" in text(found) and "cat/1.jpg" in text(found)
        assert "secret" not in text(found)
        for outside in ("../secret.txt", "/etc/passwd", "cat/out.jpg"):
            refused = await client.call_tool(
                "classify", {"classifier": "pets", "pictures": [outside]}
            )
            assert refused.is_error and "PATH_OUTSIDE" in text(refused)
        await client.call_tool(
            "create_classifier", {"name": "pets", "classes": {"cat": ["cat"], "dog": ["dog/2.jpg"]}}
        )
        made = await client.call_tool(
            "correct", {"classifier": "pets", "picture": "dog/2.jpg", "right_class": "fox"}
        )
        assert "caches/pets/versions/2" in text(made)

    drive(fake, root, use)
    assert [one.input.encoded_image for one in sent_examples(created[0])] == [
        *(b"cat/0.jpg", b"cat/1.jpg", b"dog/2.jpg"),
    ]
    assert [one.display_name for one in added[0][0].spec.new_classes] == ["fox"]


def test_read_only_offers_nothing_that_changes(fake, root):
    async def use(client):
        tools = (await client.list_tools()).tools
        assert all(one.annotations.read_only_hint for one in tools)
        return {one.name for one in tools}

    names = drive(fake, root, use, "--read-only")
    assert names == {"list_classifiers", "describe_classifier", "classify", "evaluate", "drift"}


def test_a_model_says_what_is_unknown_and_sees_what_drifts(fake, root):
    created = []
    fake.create = versioned(created)

    def classify(requests, context):
        for sequence, item in numbered(requests):
            result = classify_pb2.ItemResult(id=item.id, sequence=sequence)
            found = result.classification
            found.version, found.accepted = "caches/pets/versions/1", False
            found.prediction_set.add(display_name="cat", probability=0.6)
            yield classify_pb2.ClassifyStreamResponse(results=[result])

    fake.streams = [classify]
    drift = analysis_pb2.Drift(summary="as the examples are", item_count=7)
    fake.unary["GetDrift"] = lambda request, context: drift

    async def use(client):
        classes = {"cat": ["cat"], "dog": ["dog", "cat/0.jpg"]}
        await client.call_tool(
            "create_classifier",
            {"name": "pets", "classes": classes, "multi_label": True, "unknown": ["dog"]},
        )
        asks = {"classifier": "pets", "pictures": ["cat/0.jpg"], "reject": True, "coverage": 0.9}
        found = text(await client.call_tool("classify", asks))
        assert '"accepted": false' in found and '"prediction_set"' in found
        assert "as the examples are" in text(
            await client.call_tool("drift", {"classifier": "pets"})
        )

    drive(fake, root, use)
    examples = sent_examples(created[0])
    assert created[0][0].spec.multi_label
    assert [list(one.class_indices) for one in examples if not one.unknown] == [[0, 1], [0], [1]]
    assert [one.unknown for one in examples] == [False, False, False, True]
    [config] = fake.configs
    assert config.options.HasField("reject")
    assert config.options.coverage == pytest.approx(0.9)
