"""The MuJoCo models of an installed `metaworld`; its Python code is not imported."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import mujoco

from metarl.errors import UserError

VERSION = "3.1.1"  # whose rewards these are
INSTALL = f"pip install --no-deps metaworld=={VERSION}"


def asset_directory() -> Path:
    """The directory of the models.

    Raises:
        UserError: if this version of metaworld is not installed.
    """
    try:
        package = distribution("metaworld")
    except PackageNotFoundError as error:
        raise UserError(
            f"Meta-World's models are not installed: {INSTALL} (its own dependencies, among them "
            "an old MuJoCo, are not needed)"
        ) from error
    if package.version != VERSION:
        raise UserError(
            f"metaworld {package.version} is installed, whose models and rewards may differ: "
            f"{INSTALL}"
        )
    return Path(str(package.locate_file("metaworld/assets")))


def load_model(scene_file: str) -> mujoco.MjModel:
    """Compile a scene, with the weld that moves the hand as in the original environment."""
    model = mujoco.MjModel.from_xml_path(str(asset_directory() / "sawyer_xyz" / scene_file))
    reset_welds(model)
    return model


def reset_welds(model: mujoco.MjModel) -> None:
    """Write anchor, relative pose and torque scale of welds; MuJoCo 4 has a twelfth number."""
    welds = model.eq_type == mujoco.mjtEq.mjEQ_WELD
    model.eq_data[welds, :11] = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0]
