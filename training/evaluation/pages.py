"""What pages of results are made of: the template engine, charts and thumbnails that lie in the page itself.

A page refers to nothing outside and has no script. The engine escapes every text, for names of labels and files are
anybody's.
"""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from training.data.dataset import Dataset
from training.data.row_reader import RowReader
from training.measures.charts import DARK, LIGHT, Theme, drawn_in

_DPI, _THUMB, _PNG_MOST = 110, 96, 48  # thumbnails are PNG up to 48 px, where JPEG would show


class Chart(NamedTuple):
    """A picture for a light and for a dark page, as data URIs, and what it shows in words."""

    light: str
    dark: str
    words: str


def render(template: Path, **values: Any) -> str:
    """The HTML that a template file makes of `values`; a value that it lacks is an error."""
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(values)


def draw_chart(words: str, draw: Callable[[Theme], Figure | None]) -> Chart | None:
    """The figure that `draw` makes, for a light and for a dark page; None if it makes none."""
    uris = []
    for theme in (LIGHT, DARK):
        with drawn_in(theme):
            figure = draw(theme)
            if figure is None:
                return None
            FigureCanvasAgg(figure)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=_DPI, transparent=True)
        uris.append(image_uri("png", buffer.getvalue()))
    return Chart(uris[0], uris[1], words)


def thumbnail(dataset: Dataset, row: int) -> dict[str, Any]:
    """An image as a small picture: "uri", whether it is "small" (shown pixel by pixel), its "label" and "id"."""
    image = Image.fromarray(RowReader(dataset.images)(np.array([row]))[0])
    image.thumbnail((_THUMB, _THUMB))
    form = "png" if max(image.size) <= _PNG_MOST else "jpeg"
    buffer = io.BytesIO()
    image.save(buffer, form)
    facts = {"label": dataset.label_name(row), "id": dataset.ids[row], "small": form == "png"}
    return {"uri": image_uri(form, buffer.getvalue())} | facts


def image_uri(form: str, content: bytes) -> str:
    """An encoded image, "png" for instance, as a data URI."""
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"
