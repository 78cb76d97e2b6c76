"""`/v1/embeddings` by OpenAI's own client."""

from __future__ import annotations

import base64

import numpy as np
import openai
import pytest
import wire
from pictures import photo, png
from wire import classify


@pytest.fixture
def client(tiny):
    return openai.OpenAI(base_url=f"http://{tiny.address}/v1", api_key="none", max_retries=0)


def url(file: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(file).decode()


@pytest.mark.parametrize("encoding", ["float", "base64", openai.NOT_GIVEN])
def test_texts_and_pictures_in_their_order(tiny, client, chance, encoding):
    files = [png(photo(chance, 1)), png(photo(chance, 2))]
    inputs = [url(files[0]), "a cat", url(files[1]), "a dog"]
    answer = client.embeddings.create(model="clip", input=inputs, encoding_format=encoding)
    request = classify.EmbedRequest(inputs=map(wire.encoded, files), texts=["a cat", "a dog"])
    of_grpc = tiny.api.classifying.Embed(request)
    pictures, texts = of_grpc.inputs, of_grpc.texts
    expected = [pictures[0], texts[0], pictures[1], texts[1]]
    for one, want in zip(answer.data, expected, strict=True):
        got = one.embedding
        if isinstance(got, str):
            got = np.frombuffer(base64.b64decode(got), np.float32)
        # Batches may differ, and so does rounding.
        np.testing.assert_allclose(np.float32(got), want.embedding.values, rtol=1e-4, atol=1e-6)
    assert [one.index for one in answer.data] == [0, 1, 2, 3]
    # Tokens are the texts': start, words, end. Pictures have none.
    tokens = sum(text.token_count for text in texts)
    assert tokens > 2 * 2 and not any(picture.token_count for picture in pictures)
    assert answer.model == "clip" and answer.usage.total_tokens == tokens
    assert answer.usage.prompt_tokens == tokens


def test_tokens_are_those_that_are_encoded(tiny, client):
    short = client.embeddings.create(model="m", input="a cat").usage.total_tokens
    longer = client.embeddings.create(model="m", input="a cat a cat").usage.total_tokens
    assert longer == 2 * short - 2, "start and end marks are counted once a text"
    assert client.embeddings.create(model="m", input=["a cat"] * 3).usage.total_tokens == 3 * short
    cut = classify.EmbedRequest(texts=["cat " * 500], truncate_texts=True)
    [text] = tiny.api.classifying.Embed(cut).texts
    assert text.token_count == 77


def test_one_text(client):
    answer = client.embeddings.create(model="m", input="a cat", dimensions=48)
    assert len(answer.data) == 1 and len(answer.data[0].embedding) == 48


def test_errors(client):
    for given, words in [
        ({"input": [1, 2, 3]}, "expected a string"),
        ({"input": "data:image/png;base64,@@"}, "data URL"),
        ({"input": ["a cat", url(b"no picture")]}, "input[1]"),
        ({"input": "cat " * 200}, "202 tokens"),
        ({"input": "a cat", "dimensions": 7}, "dimensions"),
    ]:
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model="m", **given)
        assert words in str(caught.value), (given, caught.value)
        assert caught.value.type == "invalid_request_error"
