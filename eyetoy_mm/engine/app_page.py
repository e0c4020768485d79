"""The page of ``eyetoy app``, in Gradio."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr

from eyetoy_mm.compat.image_sizes import ImageTooLargeError
from eyetoy_mm.engine import app
from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.errors import UserError

_HIDDEN: dict[str, Any] = dict(api_visibility="private")
# All share one model, and what is recorded of it.
_ONE_AT_A_TIME: dict[str, Any] = dict(concurrency_id="model", concurrency_limit=1)


def build_page(predictor: Predictor, title: str) -> gr.Blocks:
    """The page of a model: ``launch`` serves it. Its functions are an API too: ``predict`` and ``attend``.

    Args:
        predictor: The model.
        title: What stands above.
    """

    @_told
    def predict(photo: str | None, threshold: float) -> Any:
        return (None, []) if photo is None else app.predict(predictor, photo, threshold)

    @_told
    def attend(photo: str | None, x: int, y: int, block: int) -> Any:
        return None if photo is None else app.attend(predictor, photo, (int(x), int(y)), int(block))

    def clicked(event: gr.SelectData) -> tuple[int, int]:
        return event.index[0], event.index[1]

    encoder = app.encoder_of(predictor)
    with gr.Blocks(title="EyeToy", analytics_enabled=False) as page:
        gr.Markdown(f"## {title}")
        with gr.Row():
            # The file as it is: with an image mode it would be encoded anew.
            photo = gr.Image(label="Photo", type="filepath", image_mode=None, sources=["upload", "webcam", "clipboard"])
            painted = gr.Image(label="Prediction", format="png", interactive=False)
            table = gr.Dataframe(headers=["class", "share or score"], label="Classes", interactive=False)
        threshold = gr.Slider(0, 1, predictor.painter.score_threshold, label="Least score of objects")
        photo.change(predict, [photo, threshold], [painted, table], api_name="predict", **_ONE_AT_A_TIME)
        threshold.release(predict, [photo, threshold], [painted, table], **_HIDDEN, **_ONE_AT_A_TIME)
        if encoder is None:
            return page
        gr.Markdown(
            "Click on the photo to see what that position attends to, from dark for the least to bright for the most."
        )
        with gr.Row():
            x, y = gr.Number(0, label="Column", precision=0), gr.Number(0, label="Row", precision=0)
            block = gr.Slider(0, len(encoder.transformer_stack.blocks) - 1, 0, step=1, label="Block")
        attention = gr.Image(show_label=False, format="png", interactive=False)
        asked = [photo, x, y, block]
        click = photo.select(clicked, None, [x, y], **_HIDDEN)
        click.then(attend, asked, attention, api_name="attend", **_ONE_AT_A_TIME)
        block.release(attend, asked, attention, **_HIDDEN, **_ONE_AT_A_TIME)
    return page


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mistakes of the user as the page tells them."""

    @wraps(function)
    def run(*args: Any) -> Any:
        try:
            return function(*args)
        except (UserError, ImageTooLargeError) as error:
            raise gr.Error(str(error)) from error

    return run
