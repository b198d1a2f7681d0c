"""Pictures of MuJoCo simulations, with the task drawn into the scene."""

import importlib
import os
import sys

import mujoco
import numpy as np
from mujoco.rendering.classic import gl_context

from metarl.envs.objectives import Marker
from metarl.envs.world import Floats, Frame

WIDTH, HEIGHT = 480, 360
# Okabe and Ito's bluish green: stands out from the scene for colour-blind readers as well
COLOUR = np.array([0.0, 0.62, 0.45, 1.0], dtype=np.float32)


def choose_backend() -> None:
    """Where there is no display and MUJOCO_GL is not set, render by EGL, or else by OSMesa.

    MuJoCo reads MUJOCO_GL when it is first imported, and without a display its own choice, GLFW,
    aborts the process. So the choice is made here, when the first picture is wanted.

    Raises:
        RuntimeError: if neither works, with what to install.
    """
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("MUJOCO_GL"):
        return
    failures = []
    for backend in ("egl", "osmesa"):
        try:
            context = importlib.import_module(f"mujoco.{backend}").GLContext
            context(WIDTH, HEIGHT).free()
        except Exception as error:  # noqa: BLE001 - a missing library shows in many ways
            failures.append(f"{backend}: {error}")
        else:
            gl_context.GLContext = context
            return
    raise RuntimeError(
        "MuJoCo cannot render without a display here: install EGL or OSMesa (on Debian, libegl1 "
        f"or libosmesa6). {'; '.join(failures)}"
    )


class SceneRenderer:
    """Renders simulations of one model from a camera that follows the robot.

    Raises:
        RuntimeError: if no graphics backend works, with what to install or set.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        choose_backend()
        try:
            self._renderer = mujoco.Renderer(model, HEIGHT, WIDTH)
        except Exception as error:
            raise RuntimeError(
                "MuJoCo cannot render here: install EGL or OSMesa (on Debian: libegl1 or "
                "libosmesa6) and set MUJOCO_GL=egl or MUJOCO_GL=osmesa; the backend said: "
                f"{error}"
            ) from error
        self._model = model
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        self._camera.distance, self._camera.elevation, self._camera.azimuth = 5.0, -20.0, 90.0

    def frame(self, data: mujoco.MjData, marker: Marker, task: Floats) -> Frame:
        """A picture of one simulation.

        Args:
            data: its state; derived fields are computed here.
            marker: how to show the task.
            task: (T,).
        """
        mujoco.mj_forward(self._model, data)
        body = data.body("torso").xpos
        self._camera.lookat[:] = (body[0], body[1], 0.4)
        self._renderer.update_scene(data, self._camera)
        if marker == "goal":
            self._geom("CYLINDER", (0.3, 0.01, 0.0), np.array([task[0], task[1], 0.01]))
            self._geom("CYLINDER", (0.03, 0.6, 0.0), np.array([task[0], task[1], 0.6]))
        elif marker == "pace":
            # a pole that travels at the target velocity: the robot should keep level with it
            x = task[0] * data.time
            self._geom("CYLINDER", (0.04, 0.7, 0.0), np.array([x, body[1] + 0.6, 0.7]))
            self._geom("SPHERE", (0.12, 0.12, 0.12), np.array([x, body[1] + 0.6, 1.5]))
        else:
            start = np.array([body[0], body[1], 1.5])
            self._arrow(start, start + np.array([1.0 * task[0], 0.0, 0.0]))
        picture: Frame = self._renderer.render().copy()
        return picture

    def _geom(self, kind: str, size: tuple[float, float, float], position: Floats) -> None:
        scene = self._renderer.scene
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom],
            getattr(mujoco.mjtGeom, f"mjGEOM_{kind}"),
            np.array(size),
            position,
            np.eye(3).ravel(),
            COLOUR,
        )
        scene.ngeom += 1

    def _arrow(self, start: Floats, end: Floats) -> None:
        self._geom("ARROW", (0.05, 0.05, 1.0), start)
        geom = self._renderer.scene.geoms[self._renderer.scene.ngeom - 1]
        mujoco.mjv_connector(geom, mujoco.mjtGeom.mjGEOM_ARROW, 0.06, start, end)

    def close(self) -> None:
        """Free the graphics context."""
        self._renderer.close()
