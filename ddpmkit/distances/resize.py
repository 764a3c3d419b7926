"""How a picture becomes a square of another size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from ddpmkit.errors import check_choice

if TYPE_CHECKING:
    from PIL import Image

Resize = Literal["lanczos", "box", "bicubic", "adm"]


def squared(image: Image.Image, size: int, how: Resize) -> Image.Image:
    """Return an 8-bit grey or RGB image as a square of ``size``; one that is that square already is left as it is.

    ``lanczos``, ``box`` and ``bicubic``: the square in the middle, cut out in whole pixels, then one pass of Pillow's
    filter, which widens with the reduction (no aliasing) and looks at every pixel (no reducing_gap). ``adm``: as
    Dhariwal & Nichol 2021 prepare ImageNet (center_crop_arr): halved by box averages while the shorter side is at least
    twice ``size``, then bicubic to it, then the square in the middle.

    Raises:
        DdpmkitError: for another way.
    """
    from PIL import Image

    check_choice("resize", how, get_args(Resize))
    if image.size == (size, size):
        return image
    if how == "adm":
        while min(image.size) >= 2 * size:
            image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
        scale = size / min(image.size)
        sides = (round(image.width * scale), round(image.height * scale))
        return _middle(image.resize(sides, Image.Resampling.BICUBIC), size)
    filters = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX, "bicubic": Image.Resampling.BICUBIC}
    return _middle(image, min(image.size)).resize((size, size), filters[how])


def _middle(image: Image.Image, side: int) -> Image.Image:
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
