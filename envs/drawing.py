"""Images of point navigation, rasterised with numpy."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from metarl.envs.world import Floats, Frame

SIZE = 480
# Okabe and Ito's palette, which colour-blind readers can distinguish
GOAL, TRAIL, POINT, ORIGIN = (0, 158, 115), (86, 180, 233), (0, 114, 178), (120, 120, 120)


def draw_point_world(trail: Floats, goal: Floats, half_width: float) -> Frame:
    """Draw the path, the current position, the origin and the goal, the latter two with labels.

    Args:
        trail: positions from the first to the current one, (steps, 2).
        goal: (2,).
        half_width: half the side of the square of goals, which is outlined.

    Returns:
        An RGB image (480, 480, 3).
    """
    canvas = np.full((SIZE, SIZE, 3), 255, dtype=np.uint8)
    extent = 1.4 * half_width
    unit = 2.0 * extent / SIZE
    axis = (np.arange(SIZE) + 0.5) * unit - extent
    x, y = axis[None, :], -axis[:, None]

    def paint(region: NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
        canvas[region] = colour

    def disc(centre: Floats, radius: float) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
        return inside

    reach = np.maximum(np.abs(x), np.abs(y))
    paint(np.abs(reach - half_width) < unit, (200, 200, 200))
    pixel = 3.0 * unit
    origin = np.zeros(2)
    paint((np.minimum(np.abs(x), np.abs(y)) < unit) & disc(origin, 4 * pixel), ORIGIN)
    paint(disc(goal, 5 * pixel) & ~disc(goal, 3.5 * pixel), GOAL)
    paint(disc(goal, 1.5 * pixel), GOAL)
    for start, end in pairwise(trail):
        steps = max(2, int(np.abs(end - start).max() / unit) + 1)
        for t in np.linspace(0.0, 1.0, steps):
            centre = start + t * (end - start)
            column = int((centre[0] + extent) / unit)
            row = int((extent - centre[1]) / unit)
            # only the nearby pixels: discs over the whole canvas would take a second per frame
            if 1 <= column < SIZE - 1 and 1 <= row < SIZE - 1:
                canvas[row - 1 : row + 2, column - 1 : column + 2] = TRAIL
    paint(disc(trail[-1], 3 * pixel), POINT)
    image = Image.fromarray(canvas)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(18)
    goal_label = f"goal ({goal[0]:+.2f}, {goal[1]:+.2f})"
    for place, label, colour in ((origin, "start", ORIGIN), (goal, goal_label, GOAL)):
        # towards the middle of the image, and above or below the marker
        across = "l" if place[0] < 0.0 else "r"
        anchor, away = (f"{across}a", 14) if place[1] > 0.0 else (f"{across}d", -14)
        # a place outside the image has its label at the edge
        at = np.clip([(place[0] + extent) / unit, (extent - place[1]) / unit + away], 0, SIZE)
        draw.text(
            tuple(at), label, colour, font, anchor, stroke_width=3, stroke_fill=(255, 255, 255)
        )
    return np.asarray(image).copy()


def draw_cells(shades: Floats, agent: tuple[int, int]) -> Frame:
    """Draw a grid of cells and the agent's place in it.

    Args:
        shades: (rows, columns), from 0, white, to 1, green.
        agent: row and column.

    Returns:
        An RGB image of at most 480 x 480.
    """
    side = SIZE // max(shades.shape)
    white = np.full(3, 255.0)
    colours = white + shades[..., None].clip(0.0, 1.0) * (np.array(GOAL) - white)
    canvas: Frame = colours.astype(np.uint8).repeat(side, axis=0).repeat(side, axis=1)
    canvas[::side] = canvas[:, ::side] = ORIGIN
    row, column = (int((place + 0.5) * side) for place in agent)
    y, x = np.ogrid[: canvas.shape[0], : canvas.shape[1]]
    canvas[(y - row) ** 2 + (x - column) ** 2 <= (side / 4) ** 2] = POINT
    return canvas
