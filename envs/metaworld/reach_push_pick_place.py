"""Reach, push and pick-place: the three tasks of ML1's published results."""

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
    tolerance,
    with_lift,
)
from metarl.envs.metaworld.sawyer_task import SawyerTask, Step
from metarl.envs.metaworld.scene import Scene
from metarl.envs.world import Floats, Mask


class Puck(SawyerTask):
    """A puck on the table. A goal holds the puck's position and the target's, (6,)."""

    low = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.05)
    high = (0.1, 0.7, 0.02, 0.1, 0.9, 0.3)

    def accepts(self, goal: Floats) -> bool:
        """Whether the puck is at least 0.15 m from the target in the plane."""
        return bool(norm(goal[:2] - goal[3:5]) >= 0.15)

    def start(self, scene: Scene, goals: Floats) -> dict[str, Floats]:
        puck, target = goals[:, :3], goals[:, 3:]
        scene.place(puck)
        return {"object": puck, "target": target}

    def objects(self, scene: Scene) -> Floats:
        return np.hstack([scene.body("obj"), scene.geom_quaternion("objGeom")])


class Reach(Puck):
    """Move the gripper to the target; the puck has no part in it."""

    name = "reach"
    scene_file = "sawyer_reach_v3.xml"

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        distance = norm(step.scene.tcp() - step.target)
        margin = norm(np.array(self.hand_start) - step.target)
        return 10.0 * tolerance(distance, (0.0, TARGET_RADIUS), margin), distance <= TARGET_RADIUS


class Push(Puck):
    """Push the puck to the target on the table."""

    name = "push"
    scene_file = "sawyer_push_v3.xml"
    low = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.01)
    high = (0.1, 0.7, 0.02, 0.1, 0.9, 0.02)

    def start(self, scene: Scene, goals: Floats) -> dict[str, Floats]:
        # both lie at the height of the puck at rest, not at the goal's
        height = scene.body("obj")[:, 2:].copy()
        puck, target = np.hstack([goals[:, :2], height]), np.hstack([goals[:, 3:5], height])
        scene.place(puck)
        return {"object": puck, "target": target}

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        distance = norm(step.object - step.target)
        margin = norm(step.start["object"] - step.target)
        in_place = tolerance(distance, (0.0, TARGET_RADIUS), margin)
        cage = gripper_caging(step, 0.015, 0.05, 0.005)
        rewards = cage + grip(cage, step.actions)
        is_held = (norm(step.object - step.scene.tcp()) < 0.02) & (step.opening > 0.0)
        rewards = np.where(is_held, 2.0 * rewards + 1.0 + 5.0 * in_place, rewards)
        rewards = np.where(distance < TARGET_RADIUS, 10.0, rewards)
        return rewards, distance <= TARGET_RADIUS


class PickPlace(Puck):
    """Lift the puck to the target."""

    name = "pick-place"
    scene_file = "sawyer_pick_place_v3.xml"

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        distance = norm(step.object - step.target)
        margin = norm(step.start["object"] - step.target)
        in_place = tolerance(distance, (0.0, TARGET_RADIUS), margin)
        cage = caging(step, pad_caging(step, 0.015, 0.05), 0.005)
        grasp = (cage + grip(cage, step.actions)) / 2.0
        rewards = hamacher_product(grasp, in_place)
        rewards = with_lift(rewards, is_lifted(step, 0.02), in_place)
        rewards = np.where(distance < TARGET_RADIUS, 10.0, rewards)
        return rewards, distance <= 0.07
