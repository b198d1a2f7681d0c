"""Tasks that move an object to a place: peg insertion, sweeping, basketball, shelf placing."""

from typing import ClassVar

import numpy as np

from metarl.envs.metaworld.rewards import (
    TARGET_RADIUS,
    caging,
    grip,
    gripper_caging,
    hamacher_product,
    is_lifted,
    norm,
    pad_caging,
    prism_tolerance,
    tolerance,
    with_lift,
)
from metarl.envs.metaworld.sawyer_task import SawyerTask, Step
from metarl.envs.metaworld.scene import Scene
from metarl.envs.world import Floats, Mask


class PegInsertSide(SawyerTask):
    """Insert the peg into the hole at the side of the box."""

    name = "peg-insert-side"
    scene_file = "sawyer_peg_insertion_side.xml"
    low = (0.0, 0.5, 0.02, -0.35, 0.4, -0.001)
    high = (0.2, 0.7, 0.02, -0.25, 0.7, 0.001)

    def accepts(self, goal: Floats) -> bool:
        """Whether the peg is at least 0.1 m from the box in the plane."""
        return bool(norm(goal[:2] - goal[3:5]) >= 0.1)

    def bodies(self, goals: Floats) -> dict[str, Floats]:
        return {"box": goals[:, 3:]}

    def start(self, scene: Scene, goals: Floats) -> dict[str, Floats]:
        head = scene.site("pegHead").copy()  # before the peg is placed, as in the original
        scene.place(goals[:, :3])
        target = goals[:, 3:] + np.array([0.03, 0.0, 0.13])
        return {"object": goals[:, :3], "target": target, "head": head}

    def objects(self, scene: Scene) -> Floats:
        return np.hstack([scene.site("pegGrasp"), scene.site_quaternion("pegGrasp")])

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        head = step.scene.site("pegHead")
        scale = np.array([1.0, 2.0, 2.0])  # y and z must be right before the peg enters along x
        distance = norm((head - step.target) * scale)
        margin = norm((step.start["head"] - step.target) * scale)
        # less for a head that is inside the box, below or above the hole
        clearance = [
            prism_tolerance(
                head,
                step.scene.site(f"bottom_right_corner_collision_box_{i}"),
                step.scene.site(f"top_left_corner_collision_box_{i}"),
            )
            for i in (1, 2)
        ]
        in_place = tolerance(distance, (0.0, 0.07), margin)
        in_place = hamacher_product(in_place, hamacher_product(*clearance))
        cage = gripper_caging(step, 0.0075, 0.03, 0.005)
        grasp = (cage + grip(cage, step.actions)) / 2.0
        is_held = is_lifted(step, 0.08)
        rewards = hamacher_product(np.where(is_held, 1.0, grasp), in_place)
        rewards = with_lift(rewards, is_held, in_place)
        success = distance <= 0.07
        return np.where(success, 10.0, rewards), success


class Basketball(SawyerTask):
    """Lift the ball above the hoop."""

    name = "basketball"
    scene_file = "sawyer_basketball.xml"
    low = (-0.1, 0.6, 0.0299, -0.1, 0.85, 0.0)
    high = (0.1, 0.7, 0.0301, 0.1, 0.9 + 1e-7, 0.0)
    single_precision = True

    def accepts(self, goal: Floats) -> bool:
        """Whether the ball is at least 0.15 m from the basket in the plane."""
        return bool(norm(goal[:2] - goal[3:5]) >= 0.15)

    def bodies(self, goals: Floats) -> dict[str, Floats]:
        return {"basket_goal": goals[:, 3:]}

    def start(self, scene: Scene, goals: Floats) -> dict[str, Floats]:
        ball = goals[:, :3].copy()
        ball[:, 2] = np.float32(0.03)
        scene.place(ball)
        target = scene.site("goal").copy()
        target[:, 2] = 0.3  # slightly above the hoop
        return {"object": ball, "target": target}

    def objects(self, scene: Scene) -> Floats:
        return np.hstack([scene.body("bsktball"), scene.body_quaternion("bsktball")])

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        scale = np.array([1.0, 1.0, 2.0])  # emphasises the height
        distance = norm((step.object - step.target) * scale)
        margin = norm((step.start["object"] - step.target) * scale)
        in_place = tolerance(distance, (0.0, 0.08), margin)
        cage = gripper_caging(step, 0.025, 0.06, 0.005)
        grasp = (cage + grip(cage, step.actions)) / 2.0
        is_held = is_lifted(step, 0.035)
        rewards = hamacher_product(np.where(is_held, 1.0, grasp), in_place)
        rewards = with_lift(rewards, is_held, in_place)
        return np.where(distance < 0.08, 10.0, rewards), distance <= 0.08


class Block(SawyerTask):
    """A block on the table, which starts at the first two numbers of the goal."""

    low: ClassVar[tuple[float, ...]] = (-0.1, 0.6, 0.02)
    high: ClassVar[tuple[float, ...]] = (0.1, 0.7, 0.02)

    def at_rest(self, scene: Scene, goals: Floats) -> Floats:
        """Positions of the block (n, 3), at the height that it has come to rest at."""
        return np.hstack([goals[:, :2], scene.body("obj")[:, 2:]])

    def objects(self, scene: Scene) -> Floats:
        return np.hstack([scene.body("obj"), scene.geom_quaternion("objGeom")])


class ShelfPlace(Block):
    """Place the block on the shelf."""

    name = "shelf-place"
    scene_file = "sawyer_shelf_placing.xml"
    low = (-0.1, 0.5, 0.019, -0.1, 0.8, 0.299)
    high = (0.1, 0.6, 0.021, 0.1, 0.9, 0.301)
    single_precision = True

    def accepts(self, goal: Floats) -> bool:
        """Whether the block is at least 0.1 m from the target in the plane."""
        return bool(norm(goal[:2] - goal[3:5]) >= 0.1)

    def bodies(self, goals: Floats) -> dict[str, Floats]:
        return {"shelf": goals[:, 3:] - np.array([0.0, 0.0, 0.3])}

    def start(self, scene: Scene, goals: Floats) -> dict[str, Floats]:
        block = self.at_rest(scene, goals)
        scene.forward()  # the solver starts from its result: states are equal to the bit
        scene.place(block)
        return {"object": block, "target": goals[:, 3:]}

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        block, target = step.object, step.target
        distance = norm(block - target)
        in_place = tolerance(distance, (0.0, TARGET_RADIUS), norm(step.start["object"] - target))
        grasp = grip(gripper_caging(step, 0.02, 0.05, 0.01), step.actions)
        rewards = hamacher_product(grasp, in_place)
        # below the shelf, the block comes near to the target but cannot reach it: the reward falls
        # from 15 cm before the target on, the more the lower the block is, and is 0 behind it
        x, y, z = block.T
        is_below = (z > 0.0) & (z < 0.24) & (np.abs(x - target[:, 0]) < 0.15)
        depth = (y - target[:, 1] + 0.15) / 0.15
        is_before = is_below & (depth > 0.0) & (depth < 1.0)
        penalty = hamacher_product(*np.where(is_before, (depth, (0.24 - z) / 0.24), 0.0))
        in_place = np.maximum(in_place - penalty, 0.0)
        in_place = np.where(is_below & (y > target[:, 1]), 0.0, in_place)
        rewards = with_lift(rewards, is_lifted(step, 0.025), in_place)
        return np.where(distance < TARGET_RADIUS, 10.0, rewards), distance <= 0.07


def sweeping_reward(
    step: Step, target: Floats, slack: float, xz_threshold: float
) -> tuple[Floats, Mask]:
    """Rewards and success of pushing the block with the closed or open gripper around it.

    Args:
        step: the state of the simulations.
        target: (n, 3).
        slack: the gap between pad and block that counts as a grip, m.
        xz_threshold: the distance of the gripper to the block in x and z that suffices, m.
    """
    distance = norm(step.object - target)
    in_place = tolerance(distance, (0.0, TARGET_RADIUS), norm(step.start["object"] - target))
    radius = 0.02
    cage = caging(step, pad_caging(step, radius, 0.05), xz_threshold)
    # the action of the gripper has no part in the grip, only its pads
    pinch = pad_caging(step, radius, radius + slack)
    grasp = (cage + np.where(cage > 0.95, pinch, 0.0)) / 2.0
    rewards = 2.0 * grasp + 6.0 * hamacher_product(grasp, in_place)
    return np.where(distance < TARGET_RADIUS, 10.0, rewards), distance <= TARGET_RADIUS


class Sweep(Block):
    """Sweep the block off the table, to the right."""

    name = "sweep"
    scene_file = "sawyer_sweep_v3.xml"

    def start(self, scene: Scene, goals: Floats) -> dict[str, Floats]:
        scene.place(goals)
        return {"object": goals, "target": goals * (0.0, 1.0, 0.0) + (0.5, 0.0, 0.01)}

    def objects(self, scene: Scene) -> Floats:
        return np.hstack([scene.body("obj"), scene.body_quaternion("obj")])

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        return sweeping_reward(step, step.target, 0.01, 0.005)


class SweepInto(Block):
    """Sweep the block into the hole of the table. The goal's last three numbers have no effect."""

    name = "sweep-into"
    scene_file = "sawyer_table_with_hole.xml"
    low = (-0.1, 0.6, 0.02, -0.001, 0.8399, 0.0199)
    high = (0.1, 0.7, 0.02, 0.001, 0.8401, 0.0201)
    hole = (0.0, 0.84, 0.02)

    def accepts(self, goal: Floats) -> bool:
        """Whether the block is at least 0.15 m from the hole."""
        return bool(norm(goal[:2] - np.array(self.hole[:2])) >= 0.15)

    def describe(self, goal: Floats) -> str:
        return super().describe(goal[:3])

    def start(self, scene: Scene, goals: Floats) -> dict[str, Floats]:
        block = self.at_rest(scene, goals)
        scene.place(block)
        return {"object": block, "target": np.broadcast_to(self.hole, block.shape)}

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        # at the height of the block, which may fall through the hole
        target = np.hstack([step.target[:, :2], step.object[:, 2:]])
        return sweeping_reward(step, target, 0.005, 0.01)
