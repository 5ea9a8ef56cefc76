"""Pictures of stored items: the source's bytes wherever they are kept, their media types, and thumbnails."""

import io

from PIL import Image

from core.images.decode import open_upright
from core.images.folders import UnreadableFile
from core.images.formats import media_type_of
from serving.collection.catalogue.items import Stored
from serving.collection.pictures.frozen import read_source
from serving.protocol.messages import Picture, RequestError

THUMBNAIL_SIDE = 128


def picture_of(item: Stored) -> Picture:
    """The source as it was stored, its bytes asked for. Raises `RequestError`, status 410, if its file is gone."""
    try:
        content = read_source(item.id, item.source)
    except UnreadableFile as error:
        raise RequestError(str(error), 410) from error
    return Picture(content, item.source.media_type or media_type_of(content))


def thumbnail_of(picture: Picture, side: int = THUMBNAIL_SIDE) -> Picture:
    """A JPEG of the whole picture, at most `side` pixels wide and high. Raises `ImageError` if it is broken."""
    image = open_upright(picture.content, side=side)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return Picture(file.getvalue(), "image/jpeg")
