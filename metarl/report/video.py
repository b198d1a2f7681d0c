"""Videos of episodes, one or several next to each other."""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from metarl.envs import TaskFamily
from metarl.envs.family import checked_tasks
from metarl.errors import UserError
from metarl.rl.agent import Agent
from metarl.rl.policy_agent import PolicyAgent
from metarl.rng import make_rng

Frame = NDArray[np.uint8]

TITLE, CAPTION = 40, 56
MAX_FPS = 30
MIN_WIDTH = 256  # of an episode's frames
MIN_POINTS = 8  # of the title's font
GIF_WIDTH, GIF_FPS, GIF_COLOURS = 720, 15, 64
INK, FAINT, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)


@dataclass(frozen=True)
class Episode:
    """A recorded episode."""

    frames: Sequence[Frame]  # images (height, width, 3); the first shows the initial state
    returns: Sequence[float]  # the sum of rewards up to each frame
    fps: float  # frames per second for playback in real time


def check_rendering(family: TaskFamily) -> None:
    """Render one image, before any work is spent on a video.

    Raises:
        UserError: as for `record`.
    """
    (task,) = checked_tasks(family, np.random.default_rng(0), 1)
    with closing(_make(family)) as env:
        env.reset(seed=0, options={"task": task})
        _rendered(env)


def _make(family: TaskFamily) -> gym.Env[Any, Any]:
    try:
        return family.make(render_mode="rgb_array")
    except TypeError as error:
        raise UserError(
            f"make of {type(family).__name__} raised {error}; it takes render_mode, None or "
            "'rgb_array'"
        ) from error


def record(
    agent: Agent,
    family: TaskFamily,
    task: NDArray[np.float64],
    seed: int,
    deterministic: bool = False,
) -> Episode:
    """Record one episode in a new environment; the agent is not changed.

    Actions are sampled, or the mean or most probable ones if `deterministic` is set.

    Raises:
        UserError: if rendering is not available; the message says what to install.
    """
    with closing(_make(family)) as env:
        return record_in(agent, env, family.horizon, task, seed, deterministic)


def record_in(
    agent: Agent,
    env: gym.Env[Any, Any],
    horizon: int,
    task: NDArray[np.float64] | None,
    seed: int,
    deterministic: bool = False,
) -> Episode:
    """Like `record`, in an existing environment; no task is passed to it if `task` is None."""
    agent = agent.fork(seed, task) if isinstance(agent, PolicyAgent) else copy.deepcopy(agent)
    # another seed than that of the actions, which would be correlated with the initial state
    env_seed = int(make_rng(seed, "video").integers(2**31))
    options = None if task is None else {"task": task}
    try:
        observation, _ = env.reset(seed=env_seed, options=options)
    except ValueError as error:
        if task is None:
            raise
        raise UserError(f"the environment refuses the task {task.tolist()}: {error}") from error
    frames, returns = [_rendered(env)], [0.0]
    for _ in range(horizon):
        action = agent.act(observation, deterministic)
        observation, reward, terminated, truncated, _ = env.step(action)
        agent.observe(float(reward), terminated, truncated, observation)
        frames.append(_rendered(env))
        returns.append(returns[-1] + float(reward))
        if terminated or truncated:
            break
    return Episode(frames, returns, float(env.metadata.get("render_fps", MAX_FPS)))


def _rendered(env: gym.Env[Any, Any]) -> Frame:
    try:
        frame = env.render()
    except NotImplementedError as error:  # gymnasium's default, without a message
        raise UserError(
            f"{type(env.unwrapped).__name__} does not implement render(); have it return an image "
            "(height, width, 3) with render_mode='rgb_array'"
        ) from error
    except (gym.error.Error, ImportError) as error:  # such as pygame, which is not installed
        raise UserError(f"{type(env.unwrapped).__name__} cannot render: {error}") from error
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise UserError("the environment renders no image with render_mode='rgb_array'")
    # small images are enlarged without smoothing, so that the caption fits above them
    factor = math.ceil(MIN_WIDTH / frame.shape[1])
    enlarged: Frame = frame.astype(np.uint8, copy=False)
    return enlarged.repeat(factor, 0).repeat(factor, 1) if factor > 1 else enlarged


def compose_frames(
    episodes: Mapping[str, Episode], title: str, length: int = 0
) -> tuple[list[Frame], float]:
    """Compose one video of several episodes, each with its name and its return so far.

    It has at least `length` frames: shorter episodes stop at their last one. Also returned are the
    frames per second: at most 30, so that frames of short steps are dropped.
    """
    first = next(iter(episodes.values()))
    stride = math.ceil(first.fps / MAX_FPS)
    length = max(length, *(len(episode.frames) for episode in episodes.values()))
    # the last frame is always shown, since its return is the result
    indices = [*range(0, length - 1, stride), length - 1]
    return [_compose(episodes, title, index) for index in indices], first.fps / stride


def _compose(episodes: Mapping[str, Episode], title: str, index: int) -> Frame:
    height, width = next(iter(episodes.values())).frames[0].shape[:2]
    sides = width * len(episodes), TITLE + CAPTION + height
    size = (sides[0] + sides[0] % 2, sides[1] + sides[1] % 2)  # H.264 needs even sides
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    # the largest font in which the title fits
    fonts = (_font(points) for points in range(20, MIN_POINTS, -1))
    font = next((f for f in fonts if f.getlength(title) < 0.98 * size[0]), _font(MIN_POINTS))
    draw.text((size[0] // 2, TITLE // 2), title, INK, font, anchor="mm")
    for column, (name, episode) in enumerate(episodes.items()):
        now = min(index, len(episode.frames) - 1)
        left = column * width
        # captions are above the images: below, a player's controls would cover them
        canvas.paste(Image.fromarray(episode.frames[now]), (left, TITLE + CAPTION))
        centre = left + width // 2
        draw.text((centre, TITLE + 16), name, INK, _font(17), anchor="mm")
        ended = ", episode over" if now < index else ""
        status = f"step {now}, return {episode.returns[now]:.1f}{ended}"
        draw.text((centre, TITLE + 40), status, FAINT, _font(14), anchor="mm")
        if column:
            draw.line([(left, TITLE), (left, size[1])], FAINT, 1)
    return np.asarray(canvas)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib's: the font of Pillow has no "²"
    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def write_mp4(path: Path, frames: Sequence[Frame], fps: float) -> None:
    """Write an H.264 video, which browsers play."""
    with imageio.get_writer(
        # browsers play yuv420p only; by default imageio rescales to multiples of 16
        path,
        fps=fps,
        codec="libx264",
        quality=7,
        macro_block_size=2,
        pixelformat="yuv420p",
    ) as writer:
        for frame in frames:
            writer.append_data(frame)  # type: ignore[attr-defined]


def write_gif(path: Path, frames: Sequence[Frame], fps: float) -> None:
    """Write a looping GIF, reduced in size, frame rate and colours to fit a README."""
    stride = math.ceil(fps / GIF_FPS)
    # the last frame is always shown, since it has the result
    images = [Image.fromarray(frame) for frame in [*frames[:-1:stride], frames[-1]]]
    width, height = images[0].size
    scale = min(1.0, GIF_WIDTH / width)  # never enlarged
    size = (round(width * scale), round(height * scale))
    images = [
        # octree, because median cut drops the few pixels that mark the task
        image.resize(size, Image.Resampling.LANCZOS).quantize(
            GIF_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        )
        for image in images
    ]
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=round(1000 * stride / fps),
        loop=0,
        optimize=True,
    )
