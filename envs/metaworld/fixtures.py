"""Tasks of a mechanism with one joint: doors, drawers, a button, a window and a lever."""

from typing import ClassVar

import numpy as np

from metarl.envs.metaworld.rewards import (
    TARGET_RADIUS,
    gripper_effort,
    hamacher_product,
    norm,
    tolerance,
)
from metarl.envs.metaworld.sawyer_task import SawyerTask, Step
from metarl.envs.metaworld.scene import OBJECT, Scene
from metarl.envs.world import Floats, Mask


class Fixture(SawyerTask):
    """A mechanism whose position is the goal, (3,).

    Attributes:
        body: the body that stands there.
        to_target: the target relative to it.
    """

    body: ClassVar[str]
    to_target: ClassVar[tuple[float, float, float]]
    single_precision = True

    def bodies(self, goals: Floats) -> dict[str, Floats]:
        return {self.body: goals}

    def start(self, scene: Scene, goals: Floats) -> dict[str, Floats]:
        return {"object": goals, "target": goals + np.array(self.to_target)}


class Door(Fixture):
    """A door; its object is the handle."""

    scene_file = "sawyer_door_pull.xml"
    low = (0.0, 0.85, 0.15)
    high = (0.1, 0.95, 0.15)
    body = "door"
    angle: ClassVar[float]  # of the joint at the start, rad

    def start(self, scene: Scene, goals: Floats) -> dict[str, Floats]:
        at, velocity = scene.joint_address("doorjoint")
        scene.place(self.angle, at, slice(velocity, velocity + 1))
        return super().start(scene, goals)

    def objects(self, scene: Scene) -> Floats:
        return np.hstack([scene.geom("handle"), scene.geom_quaternion("handle")])


class DoorOpen(Door):
    """Pull the door open by its handle."""

    name = "door-open"
    angle = 0.0
    to_target = (-0.3, -0.45, 0.0)
    single_precision = False

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        hand, handle = step.hand, step.object
        grip_point = handle - np.array([0.05, 0.0, 0.0])
        # a funnel above the handle, so that the hand does not hit it from the side
        excess = norm(hand[:, :2] - grip_point[:, :2]) - 0.12
        is_outside = excess > 0.0
        floor = np.where(is_outside, 0.04 * np.log(np.where(is_outside, excess, 1.0)) + 0.4, 0.0)
        above_floor = tolerance(floor - hand[:, 2], (-np.inf, 0.01), floor / 2.0)
        offset = np.array([0.05, 0.03, -0.01])  # between the handle and the door
        in_place = tolerance(norm(hand - grip_point - offset), (0.0, 0.06), 0.5)
        ready = hamacher_product(above_floor, in_place)
        effort = (step.actions[:, 3].astype(np.float64) + 1.0) / 2.0
        angle = -step.scene.joint("doorjoint")
        progress = 0.2 * (angle > np.pi / 90.0)
        progress += 0.8 * tolerance(np.pi * 2.0 / 3.0 - angle, (0.0, 0.5), np.pi / 3.0)
        rewards = 2.0 * hamacher_product(ready, effort) + 8.0 * progress
        success = np.abs(handle[:, 0] - step.target[:, 0]) <= 0.08
        return np.where(success, 10.0, rewards), success


class DoorClose(Door):
    """Push the open door shut."""

    name = "door-close"
    angle = -1.5708
    to_target = (0.2, -0.2, 0.0)
    hand_start = (-0.5, 0.6, 0.2)

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        handle, target = step.object, step.target
        distance = norm(handle - target)
        margin = norm(step.start["object"] - target)
        in_place = tolerance(distance, (0.0, TARGET_RADIUS), margin, "gaussian")
        margin = norm(np.array(self.hand_start, np.float32) - handle) + 0.1
        near = tolerance(norm(step.scene.tcp() - target), (0.0, 0.0125), margin, "gaussian")
        rewards = 3.0 * near + 6.0 * in_place
        return np.where(distance < TARGET_RADIUS, 10.0, rewards), distance <= 0.08


class DrawerOpen(Fixture):
    """Pull the drawer open by its handle."""

    name = "drawer-open"
    scene_file = "sawyer_drawer.xml"
    low = (-0.1, 0.9, 0.0)
    high = (0.1, 0.9, 0.0)
    body = "drawer"
    to_target = (0.0, -0.36, 0.09)

    def objects(self, scene: Scene) -> Floats:
        handle = scene.body("drawer_link") + np.array([0.0, -0.16, 0.0])
        return np.hstack([handle, scene.body_quaternion("drawer_link")])

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        hand, handle, target = step.hand, step.object, step.target
        distance, opening = norm(handle - target), 0.2
        progress = tolerance(distance, (0.0, 0.02), opening)
        # x and y count more than z: the hand comes down on the handle rather than into it
        scale = np.array([3.0, 3.0, 1.0])
        closed_handle = target + np.array([0.0, opening, 0.0])
        margin = norm((closed_handle - step.start["tcp"]) * scale)
        cage = tolerance(norm((handle - hand) * scale), (0.0, 0.01), margin)
        return 5.0 * (cage + progress), distance <= 0.03


class DrawerClose(Fixture):
    """Push the drawer shut."""

    name = "drawer-close"
    scene_file = "sawyer_drawer.xml"
    low = (-0.1, 0.9, 0.0)
    high = (0.1, 0.9, 0.0)
    body = "drawer"
    to_target = (0.0, -0.16, 0.09)

    def start(self, scene: Scene, goals: Floats) -> dict[str, Floats]:
        scene.place(-0.15, OBJECT, None)
        return super().start(scene, goals) | {"object": self.objects(scene)[:, :3]}

    def objects(self, scene: Scene) -> Floats:
        handle = scene.body("drawer_link") + np.array([0.0, -0.16, 0.05])
        return np.hstack([handle, np.zeros((len(handle), 4))])

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        handle, target = step.object, step.target
        distance = norm(handle - target)
        margin = np.abs(norm(step.start["object"] - target) - TARGET_RADIUS)
        in_place = tolerance(distance, (0.0, TARGET_RADIUS), margin)
        margin = np.abs(norm(step.start["object"] - step.start["tcp"]) - 0.005)
        near = tolerance(norm(handle - step.scene.tcp()), (0.0, 0.005), margin, "gaussian")
        reach = hamacher_product(near, gripper_effort(step.actions))
        success = distance <= TARGET_RADIUS + 0.015
        return 10.0 * np.where(success, 1.0, hamacher_product(reach, in_place)), success


class ButtonPressTopdown(Fixture):
    """Press the button down."""

    name = "button-press-topdown"
    scene_file = "sawyer_button_press_topdown.xml"
    low = (-0.1, 0.8, 0.115)
    high = (0.1, 0.9, 0.115)
    hand_start = (0.0, 0.4, 0.2)
    body = "box"

    def start(self, scene: Scene, goals: Floats) -> dict[str, Floats]:
        scene.forward()
        target = scene.site("hole").copy()
        travel = np.abs(target[:, 2] - scene.site("buttonStart")[:, 2])
        return {"object": goals, "target": target, "travel": travel}

    def objects(self, scene: Scene) -> Floats:
        button = scene.body("button") + np.array([0.0, 0.0, 0.193])
        return np.hstack([button, scene.body_quaternion("button")])

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        opening, button = step.opening, step.object
        distance = np.abs(step.target[:, 2] - button[:, 2])
        to_button = norm(button - step.scene.tcp())
        # to the button of now, as in the original, not to that of the start
        margin = norm(button - step.start["tcp"])
        near = tolerance(to_button, (0.0, 0.01), margin)
        press = tolerance(distance, (0.0, 0.005), step.start["travel"])
        rewards = 5.0 * hamacher_product(1.0 - opening, near)
        return np.where(to_button <= 0.03, rewards + 5.0 * press, rewards), distance <= 0.024


class WindowOpen(Fixture):
    """Slide the window open by its handle."""

    name = "window-open"
    scene_file = "sawyer_window_horizontal.xml"
    low = (-0.1, 0.7, 0.16)
    high = (0.1, 0.9, 0.16)
    hand_start = (0.0, 0.4, 0.2)
    body = "window"
    to_target = (0.2, 0.0, 0.0)

    def start(self, scene: Scene, goals: Floats) -> dict[str, Floats]:
        handle = scene.site("handleOpenStart").copy()
        at, _ = scene.joint_address("window_slide")
        scene.batch.bind("qpos")[scene.rows, at] = 0.0  # without mj_forward, as in the original
        return super().start(scene, goals) | {"handle": handle}

    def objects(self, scene: Scene) -> Floats:
        handle = scene.site("handleOpenStart")
        return np.hstack([handle, np.zeros((len(handle), 4))])

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        handle, target = step.object, step.target
        distance = np.abs(handle[:, 0] - target[:, 0])
        margin = np.abs(np.abs(step.start["object"][:, 0] - target[:, 0]) - TARGET_RADIUS)
        in_place = tolerance(distance, (0.0, TARGET_RADIUS), margin)
        margin = np.abs(norm(step.start["handle"] - step.start["tcp"]) - 0.02)
        reach = tolerance(norm(handle - step.scene.tcp()), (0.0, 0.02), margin)
        return 10.0 * hamacher_product(reach, in_place), distance <= TARGET_RADIUS


class LeverPull(Fixture):
    """Pull the lever up until it stands upright."""

    name = "lever-pull"
    scene_file = "sawyer_lever_pull.xml"
    low = (-0.1, 0.7, 0.0)
    high = (0.1, 0.8, 0.0)
    hand_start = (0.0, 0.4, 0.2)
    hand_low = (-0.5, 0.4, -0.15)
    body = "lever"
    to_target = (0.12, 0.0, 0.45)

    def start(self, scene: Scene, goals: Floats) -> dict[str, Floats]:
        lever = goals + np.array([0.12, -0.2, 0.25])
        return super().start(scene, goals) | {"object": lever}

    def objects(self, scene: Scene) -> Floats:
        return np.hstack([scene.site("leverStart"), scene.geom_quaternion("objGeom")])

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        hand, lever, target = step.hand, step.object, step.target
        # the shoulder of the gripper lifts the lever, not its fingers; y counts less, so that the
        # shoulder comes under the lever before it touches it
        offset, scale = np.array([0.0, 0.055, 0.07]), np.array([4.0, 1.0, 4.0])
        margin = norm((step.start["tcp"] + offset - step.start["object"]) * scale)
        ready = tolerance(norm((hand + offset - lever) * scale), (0.0, 0.02), margin)
        margin = norm(step.start["object"] - target)
        in_place = tolerance(norm(lever - target), (0.0, 0.04), margin)
        error = np.abs(-step.scene.joint("LeverAxis") - np.pi / 2.0)
        return 10.0 * hamacher_product(ready, in_place), error <= np.pi / 24.0
