"""Which pictures a network read right, as text: a bit an answer, so that it fits into a frame and into the journal.

The answers stand as the images do (``ImageTask.views``): view by view, and in each view picture by picture.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]


def pack_answers(right: BoolArray) -> str:
    """Text of the answers to images, (n,)."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpack_answers(text: str, pictures: int, views: int) -> BoolArray:
    """The answers that ``pack_answers`` packed, (pictures, views).

    Raises:
        ValueError: the text holds another number of answers.
    """
    try:
        bits = np.unpackbits(np.frombuffer(base64.b64decode(text, validate=True), np.uint8))
    except binascii.Error as error:
        raise ValueError(f"these are no answers: {error}") from None
    images = pictures * views
    if images == 0 or not images <= len(bits) < images + 8:
        raise ValueError(f"{len(bits)} bits are not the answers to {images} images")
    return bits[:images].astype(bool).reshape(views, pictures).T
