"""A playground in the browser, with Gradio: try a classifier, and correct it.

    pip install './clients/python[all]' gradio
    python examples/playground/app.py --server 127.0.0.1:50051

A picture gets its classes and its nearest examples. "It is a ..." adds the picture
to that class: a new version, which the next picture is tried on.
"""

from __future__ import annotations

import argparse
from typing import Any

import gradio as gr
import tipserve


class Playground:
    """What the page does."""

    def __init__(self, client: tipserve.Client) -> None:
        self._client = client

    def names(self) -> list[str]:
        """The classifiers that there are."""
        return [cache.id for cache in self._client.caches(fields=["name"])]

    def classify(
        self, name: str, path: str | None
    ) -> tuple[dict[str, float], list[list[Any]], str]:
        """Classes with their probabilities, nearest examples, and a line of text."""
        if not path:
            return {}, [], "Give a picture first."
        try:
            result = self._client.classify_one(name, path, neighbours=5)
        except tipserve.TipserveError as error:
            return {}, [], str(error)
        classes = {one.display_name: one.probability for one in result.top}
        near = [[n.example_id, n.display_name, round(n.similarity, 4)] for n in result.neighbours]
        return classes, near, f"Answered by {result.version}."

    def correct(self, name: str, path: str | None, right: str) -> str:
        """Adds the picture to a class; says what became of it."""
        if not path or not right.strip():
            return "Give a picture and its class first."
        try:
            made = self._client.add_examples(name, [(path, right.strip())], created_by="playground")
        except tipserve.TipserveError as error:
            return str(error)
        if made.rejected:
            return str(made.rejected[0].error)
        return f"{made.name} has learned it: {len(made.classes)} classes, {made.key_count} keys."


def page(client: tipserve.Client) -> gr.Blocks:
    """The page."""
    playground = Playground(client)
    with gr.Blocks(title="tipserve") as made:
        gr.Markdown("# tipserve\nA few labelled pictures are a classifier.")
        with gr.Row():
            with gr.Column():
                names = playground.names()
                name = gr.Dropdown(
                    names,
                    value=names[0] if names else None,
                    label="Classifier",
                    allow_custom_value=True,
                )
                picture = gr.Image(type="filepath", format="png", label="Picture")
                ask = gr.Button("Classify", variant="primary")
                right = gr.Textbox(label="It is a ...")
                teach = gr.Button("Correct")
            with gr.Column():
                classes = gr.Label(num_top_classes=5, label="Classes")
                near = gr.Dataframe(
                    headers=["example", "class", "similarity"], label="Nearest examples"
                )
                said = gr.Markdown()
        ask.click(playground.classify, [name, picture], [classes, near, said], api_name="classify")
        teach.click(playground.correct, [name, picture, right], said, api_name="correct")
    return made


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", help="host:port of the tipserve; default: TIPSERVE_SERVER")
    parser.add_argument("--port", type=int, default=7860)
    given = parser.parse_args()
    with tipserve.Client(given.server) as client:
        page(client).launch(server_name="127.0.0.1", server_port=given.port)


if __name__ == "__main__":
    main()
