"""Videos of a policy before and after adaptation, side by side."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from metarl.envs import TaskFamily
from metarl.params import Params
from metarl.rl.policies import Memory, Policy
from metarl.rng import make_rng

Frame = NDArray[np.uint8]

TITLE, CAPTION = 40, 56
MAX_FPS = 30
NARROWEST = 256
GIF_WIDTH, GIF_FPS, GIF_COLOURS = 720, 15, 64
INK, FAINT, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)


@dataclass(frozen=True)
class Episode:
    """One episode as it was seen.

    Attributes:
        frames: pictures (height, width, 3), the first before the first step.
        returns: the sum of rewards up to each frame.
        fps: at which it plays in real time.
    """

    frames: Sequence[Frame]
    returns: Sequence[float]
    fps: float


def record(
    policy: Policy,
    params: Params,
    family: TaskFamily,
    task: NDArray[np.float64],
    seed: int,
    memory: Memory = (),
) -> Episode:
    """Play one episode, with actions drawn as in training, and take a picture of every step.

    Args:
        policy: what the parameters are of.
        params: of one policy.
        family: environments; they must render "rgb_array".
        task: (T,).
        seed: fixes start and action noise.
        memory: what the policy remembers of earlier episodes, every leaf (1, ...).

    Raises:
        RuntimeError: if nothing can be rendered, with what to install.
    """
    env = family.make(render_mode="rgb_array")
    try:
        return film(policy, params, env, family.horizon, task, seed, memory)
    finally:
        env.close()


@torch.no_grad()
def film(
    policy: Policy,
    params: Params,
    env: gym.Env[Any, Any],
    horizon: int,
    task: NDArray[np.float64] | None,
    seed: int,
    memory: Memory = (),
) -> Episode:
    """As `record`, in an environment that exists and stays open; it is told no task where None."""
    rng = make_rng(seed, "video")
    noise = torch.from_numpy(policy.noise(rng, (horizon, 1)))
    options = None if task is None else {"task": task}
    observation, _ = env.reset(seed=int(rng.integers(2**31)), options=options)
    frames, returns = [_picture(env.render())], [0.0]
    for t in range(horizon):
        seen = torch.from_numpy(np.asarray(observation, dtype=np.float32))[None]
        distribution, memory = policy.step(params, memory, seen)
        action = policy.act(distribution, noise[t])
        observation, reward, terminated, truncated, _ = env.step(action[0].numpy())
        memory = policy.remember(
            memory, action, torch.tensor([float(reward)]), torch.tensor([terminated])
        )
        frames.append(_picture(env.render()))
        returns.append(returns[-1] + float(reward))
        if terminated or truncated:
            break
    return Episode(frames, returns, float(env.metadata.get("render_fps", MAX_FPS)))


def _picture(frame: object) -> Frame:
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise RuntimeError("the environment renders no picture with render_mode='rgb_array'")
    # pixels of a small one become squares: there has to be room for what is written above
    factor = math.ceil(NARROWEST / frame.shape[1])
    enlarged: Frame = frame.astype(np.uint8, copy=False)
    return enlarged.repeat(factor, 0).repeat(factor, 1) if factor > 1 else enlarged


def side_by_side(
    episodes: Mapping[str, Episode], title: str, length: int = 0
) -> tuple[list[Frame], float]:
    """One video of several episodes, each with its name and the return so far.

    Args:
        episodes: by name, such as "before adaptation".
        title: what the task is.
        length: in frames; that of the longest episode, if that is more. An episode that is over
            stands still.

    Returns:
        Frames, and how many a second. At most 30: where the steps are shorter, some are left out.
    """
    first = next(iter(episodes.values()))
    stride = math.ceil(first.fps / MAX_FPS)
    length = max(length, *(len(episode.frames) for episode in episodes.values()))
    indices = [*range(0, length - 1, stride), length - 1]
    return [_compose(episodes, title, index) for index in indices], first.fps / stride


def _compose(episodes: Mapping[str, Episode], title: str, index: int) -> Frame:
    height, width = next(iter(episodes.values())).frames[0].shape[:2]
    # even sides: the video format wants them
    size = (_even(width * len(episodes)), _even(TITLE + CAPTION + height))
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((size[0] // 2, TITLE // 2), title, INK, _font(22), anchor="mm")
    for column, (name, episode) in enumerate(episodes.items()):
        now = min(index, len(episode.frames) - 1)
        left = column * width
        # captions stand above the pictures: below, a player's controls would cover them
        canvas.paste(Image.fromarray(episode.frames[now]), (left, TITLE + CAPTION))
        centre = left + width // 2
        draw.text((centre, TITLE + 16), name, INK, _font(19), anchor="mm")
        ended = ", episode over" if now < index else ""
        status = f"step {now}, return {episode.returns[now]:.1f}{ended}"
        draw.text((centre, TITLE + 40), status, FAINT, _font(16), anchor="mm")
        if column:
            draw.line([(left, TITLE), (left, size[1])], FAINT, 1)
    return np.asarray(canvas)


def _even(number: int) -> int:
    return number + number % 2


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def write_mp4(path: Path, frames: Sequence[Frame], fps: float) -> None:
    """Write H.264, which browsers play."""
    with imageio.get_writer(
        path, fps=fps, codec="libx264", quality=7, macro_block_size=2, pixelformat="yuv420p"
    ) as writer:
        for frame in frames:
            writer.append_data(frame)  # type: ignore[attr-defined]


def write_gif(path: Path, frames: Sequence[Frame], fps: float) -> None:
    """Write a GIF that repeats, in the size, rate and colours that a README has room for."""
    stride = math.ceil(fps / GIF_FPS)
    pictures = [Image.fromarray(frame) for frame in frames[::stride]]
    width, height = pictures[0].size
    scale = min(1.0, GIF_WIDTH / width)
    size = (round(width * scale), round(height * scale))
    pictures = [
        # octree, because median cut drops the few pixels that mark the task
        picture.resize(size, Image.Resampling.LANCZOS).quantize(
            GIF_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        )
        for picture in pictures
    ]
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 * stride / fps),
        loop=0,
        optimize=True,
    )
