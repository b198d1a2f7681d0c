"""Adapt a meta-trained policy online to a task of your environment.

python examples/online_adaptation.py
"""

import gymnasium
import numpy as np

import metarl


def main(episodes: int = 20, steps: int = 2, horizon: int = 100) -> None:
    """Adapt to a goal that the policy does not observe, and move there."""
    policy = metarl.load("point_navigation")
    env = gymnasium.make("metarl/PointNavigation-v0")  # or your environment, with the same spaces
    goal = [0.3, -0.4]
    adapted = policy.adapt(env, task=goal, steps=steps, episodes=episodes, horizon=horizon)

    observation, _ = env.reset(seed=0, options={"task": goal})
    for _ in range(horizon):
        observation, _, terminated, truncated, _ = env.step(adapted.act(observation))
        if terminated or truncated:
            break
    print("returns of the episodes before each step:", np.round(adapted.returns, 1))
    print("arrived at", np.round(observation, 2), "of", goal)


if __name__ == "__main__":
    main()
