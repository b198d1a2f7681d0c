"""Images of MuJoCo simulations, with a marker of the task in the scene."""

import importlib
import os
import sys
from contextlib import suppress
from copy import copy

import mujoco
import numpy as np
from mujoco.rendering.classic import gl_context
from numpy.typing import NDArray

from metarl.envs.task_rewards import Marker
from metarl.envs.world import Floats, Frame
from metarl.errors import UserError

WIDTH, HEIGHT = 480, 360
# vermillion of Okabe and Ito's palette, which colour-blind readers can tell from the mint floor
TASK_COLOUR = np.array([0.84, 0.37, 0.0, 1.0], dtype=np.float32)
START_COLOUR = np.array([0.35, 0.35, 0.35, 1.0], dtype=np.float32)
TABLE_CAPTION = np.array([-0.67, 0.08, 0.63])  # a point in the corner of that view
VIEW_HALF_WIDTH = 1.6  # metres of the image to each side of the robot


def load_triton() -> None:
    """Load triton, if it is installed, before a graphics backend.

    `torch.func` imports it lazily; torch's wheel for Linux with CUDA brings it. It has LLVM, as
    Mesa has for software rendering, and a process crashes in which Mesa's was loaded first.
    """
    with suppress(ImportError):
        importlib.import_module("triton")


def choose_gl_backend() -> None:
    """Render with EGL, or else OSMesa, if there is no display and MUJOCO_GL is not set.

    MuJoCo reads MUJOCO_GL when it is imported, and its default, GLFW, aborts a process without a
    display. This function therefore sets the backend just before the first rendering.

    Raises:
        UserError: if neither backend works.
    """
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("MUJOCO_GL"):
        return
    failures = []
    for backend in ("egl", "osmesa"):
        try:
            context = importlib.import_module(f"mujoco.{backend}").GLContext
            context(WIDTH, HEIGHT).free()
        except Exception as error:  # noqa: BLE001 - the type depends on which library is missing
            failures.append(f"{backend}: {error}")
        else:
            gl_context.GLContext = context
            return
    raise UserError(
        "MuJoCo cannot render without a display: install EGL or OSMesa (on Debian, libegl1 "
        f"or libosmesa6). {'; '.join(failures)}"
    )


class SceneRenderer:
    """Renders simulations of one model with a camera that follows the robot.

    Raises:
        UserError: if no graphics backend works.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        load_triton()
        choose_gl_backend()
        model = copy(model)
        # The physics treats the floor as infinite, but its image ends after 40 m. A size of zero
        # renders an infinite plane, for which texrepeat counts repetitions per metre.
        floor = np.flatnonzero(
            (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)
            & (model.geom_matid >= 0)
            & (model.geom_size[:, :2] > 0.0).all(axis=1)
        )
        model.mat_texrepeat[model.geom_matid[floor]] /= 2.0 * model.geom_size[floor, :2]
        model.geom_size[floor, :2] = 0.0
        try:
            self._renderer = mujoco.Renderer(model, HEIGHT, WIDTH)
        except Exception as error:
            raise UserError(
                "MuJoCo cannot render: install EGL or OSMesa (on Debian: libegl1 or "
                "libosmesa6) and set MUJOCO_GL=egl or MUJOCO_GL=osmesa; the backend raised: "
                f"{error}"
            ) from error
        self._model = model
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        self._camera.distance, self._camera.elevation, self._camera.azimuth = 5.0, -20.0, 90.0
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0

    def render(self, data: mujoco.MjData, marker: Marker, task: Floats, caption: str) -> Frame:
        """Render one simulation: the robot, its initial position, and its task.

        A goal is a pole on a disc. A target velocity is a pole that moves at this velocity, which
        the robot should keep pace with; if it is outside the image, an arrow points to it. A
        direction or heading is an arrow. The caption labels the marker.

        Args:
            data: the state; derived fields are computed here.
            marker: the kind of marker.
            task: (T,).
            caption: the task in words.
        """
        mujoco.mj_forward(self._model, data)
        body = data.xpos[1]  # body 0 is the world
        self._camera.lookat[:] = (body[0], body[1], 0.4)
        self._renderer.update_scene(data, self._camera)
        if marker == "goal":
            self._pole((0.0, 0.0), START_COLOUR, "start")
            self._pole((task[0], task[1]), TASK_COLOUR, caption)
            self._geom(
                "CYLINDER", (0.3, 0.01, 0.0), np.array([task[0], task[1], 0.01]), TASK_COLOUR
            )
        else:
            side = body[1] + 0.8
            self._pole((0.0, side), START_COLOUR, "start")
            ahead = task[0] * data.time - body[0] if marker == "pace" else 0.0
            if marker == "none":
                place = np.array([body[0] - VIEW_HALF_WIDTH, side, 1.7])
                self._geom("SPHERE", (0.01, 0.01, 0.01), place, TASK_COLOUR, caption)
            elif marker in ("arrow", "heading"):
                angle = task[0] if marker == "heading" else np.pi * (task[0] < 0.0)
                self._arrow(np.array([body[0], side, 1.6]), angle, caption)
            elif abs(ahead) < VIEW_HALF_WIDTH:
                self._pole((body[0] + ahead, side), TASK_COLOUR, caption)
            else:
                place = np.array([body[0] + np.sign(ahead) * VIEW_HALF_WIDTH, side, 1.3])
                self._arrow(place, np.pi * (ahead < 0.0), caption)
        image: Frame = self._renderer.render().copy()
        return image

    def render_table(
        self, model: mujoco.MjModel, data: mujoco.MjData, target: Floats, caption: str
    ) -> Frame:
        """Render an arm at a table, with a sphere at the target (3,).

        Args:
            model: the simulation's own model, whose bodies may stand elsewhere.
            data: the state; derived fields are computed here.
            target: m.
            caption: the task in words.
        """
        mujoco.mj_forward(model, data)
        self._camera.lookat[:] = (0.0, 0.65, 0.15)
        self._camera.distance, self._camera.elevation, self._camera.azimuth = 1.6, -25.0, 145.0
        option = mujoco.MjvOption()
        option.sitegroup[:] = 0  # the scene's marker stands at a goal of its own
        self._renderer.update_scene(data, self._camera, option)
        self._geom("SPHERE", (0.025, 0.0, 0.0), target, TASK_COLOUR)
        # at the image's upper left corner: beside the target it would be cut off
        self._geom("SPHERE", (0.001, 0.0, 0.0), TABLE_CAPTION, TASK_COLOUR, caption)
        image: Frame = self._renderer.render().copy()
        return image

    def _pole(self, place: tuple[float, float], colour: NDArray[np.float32], label: str) -> None:
        self._geom("CYLINDER", (0.03, 0.6, 0.0), np.array([*place, 0.6]), colour)
        self._geom("SPHERE", (0.1, 0.1, 0.1), np.array([*place, 1.25]), colour, label)

    def _geom(
        self,
        kind: str,
        size: tuple[float, float, float],
        position: Floats,
        colour: NDArray[np.float32],
        label: str = "",
    ) -> None:
        scene = self._renderer.scene
        geom = scene.geoms[scene.ngeom]
        mujoco.mjv_initGeom(
            geom,
            getattr(mujoco.mjtGeom, f"mjGEOM_{kind}"),
            np.array(size),
            position,
            np.eye(3).ravel(),
            colour,
        )
        geom.label = label
        scene.ngeom += 1

    def _arrow(self, start: Floats, angle: float, label: str) -> None:
        end = start + 0.8 * np.array([np.cos(angle), np.sin(angle), 0.0])
        self._geom("ARROW", (0.05, 0.05, 1.0), start, TASK_COLOUR, label)
        geom = self._renderer.scene.geoms[self._renderer.scene.ngeom - 1]
        mujoco.mjv_connector(geom, mujoco.mjtGeom.mjGEOM_ARROW, 0.08, start, end)

    def close(self) -> None:
        """Free the graphics context."""
        self._renderer.close()
