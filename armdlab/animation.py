"""How does a text come into being, as a picture that moves?"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence, Set

from PIL import Image, ImageDraw, ImageFont

WIDTH, LINE, EDGE = 720, 20, 8  # pixels


def gif(after: Callable[[int], Sequence[str | None]], new: Sequence[Set[int]], milliseconds: int) -> bytes:
    """Draw a text as it stood after 0, 1, .. steps, by Pillow, which comes with matplotlib.

    One frame is drawn at a time, as high as the text, and kept as a byte a pixel: whole pages in colour would need
    1.5 GB for 160 tokens, these need 30 MB.

    Args:
        after: the text after so many steps, a piece a position, None where nothing was yet.
        new: positions that each step made; those of 0 are empty.
        milliseconds: for each frame; the last one stays ten times as long.
    """
    last, font = len(new) - 1, ImageFont.load_default(14)

    def placed(number: int) -> Iterator[tuple[int, str, float, int, float]]:
        """Position, text, x, y and width of each piece after so many steps."""
        x, y = float(EDGE), EDGE + LINE
        for position, piece in enumerate(after(number)):
            shown = "·" if piece is None else piece.replace("\n", " ")
            wide = font.getlength(shown)
            if x + wide > WIDTH - EDGE:
                x, y = float(EDGE), y + LINE
            yield position, shown, x, y, wide
            x += wide

    height = EDGE + LINE + max((y for number in range(last + 1) for *_, y, _ in placed(number)), default=EDGE + LINE)

    def frame(number: int) -> Image.Image:
        image = Image.new("RGB", (WIDTH, height), "white")
        draw = ImageDraw.Draw(image)
        draw.text((EDGE, 6), f"step {number} of {last}", fill="#555555", font=font)
        for position, shown, x, y, wide in placed(number):
            if position in new[number]:
                draw.rectangle((x, y, x + wide, y + LINE - 2), fill="#F0E442")
            draw.text((x, y), shown, fill="black", font=font)
        return image.convert("P", palette=Image.Palette.ADAPTIVE)

    out, durations = io.BytesIO(), [milliseconds] * last + [10 * milliseconds]
    later = map(frame, range(1, last + 1))
    frame(0).save(out, "GIF", save_all=True, append_images=later, duration=durations, loop=0)
    return out.getvalue()
