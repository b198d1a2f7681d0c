"""Small families whose best returns are known, against brute force."""

from functools import cache
from itertools import product

import numpy as np
import pytest

from metarl.envs import Bandit, Gridworld, Semicircle, TabularMDP, load_family
from metarl.envs.bandits import (
    expected_return,
    gittins_indices,
    gittins_rule,
    simulated_returns,
)
from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.method import load_method, train


def rngs(index: int) -> np.random.Generator:
    return np.random.default_rng(index)


def brute_force_bandit(arms: int, pulls: int) -> float:
    """The value of the best decision tree, with every history as its own belief."""

    def value(history: tuple[tuple[int, bool], ...]) -> float:
        if len(history) == pulls:
            return 0.0
        best = 0.0
        for arm in range(arms):
            outcomes = [won for pulled, won in history if pulled == arm]
            mean = (sum(outcomes) + 1) / (len(outcomes) + 2)
            won, lost = value((*history, (arm, True))), value((*history, (arm, False)))
            best = max(best, mean * (1.0 + won) + (1.0 - mean) * lost)
        return best

    return value(())


@pytest.mark.parametrize(("arms", "pulls"), [(2, 1), (2, 5), (3, 4)])
def test_optimal_play_of_a_bandit_equals_the_best_decision_tree(arms: int, pulls: int) -> None:
    optimum = expected_return(arms, pulls)
    assert optimum == pytest.approx(brute_force_bandit(arms, pulls), abs=1e-12)
    # pulling the first arm always is worth half of the pulls
    assert expected_return(arms, pulls, lambda counts, remaining: 0) <= optimum
    assert expected_return(arms, pulls, gittins_rule(pulls)) == pytest.approx(optimum, rel=0.01)


def test_gittins_indices_are_payments_at_which_the_best_stopping_rule_gains_nothing() -> None:
    def gain(payment: float, remaining: int, successes: int, failures: int) -> float:
        """The expected gain of at least one pull, and then of stopping at the best time."""
        mean = (successes + 1) / (successes + failures + 2)
        total = mean - payment
        if remaining > 1:
            won = gain(payment, remaining - 1, successes + 1, failures)
            lost = gain(payment, remaining - 1, successes, failures + 1)
            total += mean * max(0.0, won) + (1.0 - mean) * max(0.0, lost)
        return total

    indices = gittins_indices(6, resolution=2000)
    for remaining, successes, failures in [(6, 0, 0), (3, 2, 1), (4, 0, 2), (1, 3, 2)]:
        low, high = 0.0, 1.0
        while high - low > 1e-6:
            middle = (low + high) / 2.0
            is_positive = gain(middle, remaining, successes, failures) > 0.0
            low, high = (middle, high) if is_positive else (low, middle)
        assert indices[remaining, successes, failures] == pytest.approx(low, abs=1e-3)
    # with one pull left there is nothing to learn: the index is the mean
    assert indices[1, 3, 2] == pytest.approx(4 / 7, abs=1e-3)


def test_simulated_rules_have_their_exact_returns() -> None:
    rng, pulls = np.random.default_rng(0), 4
    tasks = Bandit(3, pulls).sample_tasks(rng, 40_000)
    gittins = simulated_returns(tasks, pulls, rng, gittins_indices(pulls))
    exact = expected_return(3, pulls, gittins_rule(pulls))
    error = gittins.std() / np.sqrt(len(tasks))
    assert gittins.mean() == pytest.approx(exact, abs=4.0 * error)
    thompson = simulated_returns(tasks, pulls, rng)
    assert 0.5 * pulls + 4.0 * error < thompson.mean() < gittins.mean()


@pytest.mark.slow
def test_the_published_sizes_of_bandits_have_the_optima_of_the_documentation() -> None:
    assert expected_return(5, 10) == pytest.approx(6.660, abs=5e-4)
    assert expected_return(5, 10, gittins_rule(10)) == pytest.approx(6.660, abs=5e-4)


def test_an_arm_pays_with_its_probability() -> None:
    world = Bandit(3).world(2)
    world.tasks[:] = [[0.0, 1.0, 0.3], [0.9, 0.0, 1.0]]
    everyone = np.ones(2, dtype=bool)
    world.reset(everyone, rngs)
    assert world.step(np.array([1, 2]), everyone, rngs)[0].tolist() == [1.0, 1.0]
    assert world.step(np.array([0, 1]), everyone, rngs)[0].tolist() == [0.0, 0.0]
    generators = [np.random.default_rng(index) for index in range(2)]
    rewards = [
        world.step(np.array([2, 0]), everyone, lambda i: generators[i])[0] for _ in range(2000)
    ]
    np.testing.assert_allclose(np.mean(rewards, axis=0), [0.3, 0.9], atol=0.04)
    assert not world.observe().any()


def test_the_best_return_of_a_process_equals_that_of_the_best_of_all_policies() -> None:
    family = TabularMDP(states=2, actions=2, horizon=3)
    (task,) = tasks = family.sample_tasks(np.random.default_rng(1), 1)
    means, transitions = task[:4].reshape(2, 2), task[4:].reshape(2, 2, 2)
    np.testing.assert_allclose(transitions.sum(-1), 1.0)
    best = -np.inf
    for rules in product(product(range(2), repeat=2), repeat=3):  # an action by step and state
        occupancy, total = np.array([1.0, 0.0]), 0.0
        for rule in rules:
            total += sum(occupancy[s] * means[s, rule[s]] for s in range(2))
            occupancy = sum(occupancy[s] * transitions[s, rule[s]] for s in range(2))
        best = max(best, total)
    assert family.optimal_returns(tasks)[0] == pytest.approx(best, abs=1e-12)


def test_a_process_has_its_mean_rewards_and_transitions() -> None:
    family, num = TabularMDP(states=3, actions=2), 4000
    world, everyone = family.world(num), np.ones(num, dtype=bool)
    world.tasks[:] = family.sample_tasks(np.random.default_rng(0), 1)
    means, transitions = family.unpack(world.tasks[:1])
    generators = [np.random.default_rng(index) for index in range(num)]
    world.reset(everyone, lambda i: generators[i])
    assert (world.observe() == [1.0, 0.0, 0.0]).all()
    rewards, ended = world.step(np.ones(num, dtype=int), everyone, lambda i: generators[i])
    assert rewards.mean() == pytest.approx(means[0, 0, 1], abs=0.07)
    assert rewards.std() == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(world.observe().mean(axis=0), transitions[0, 0, 1], atol=0.04)
    assert not ended.any()


def best_walk(size: int, horizon: int, episodes: int) -> float:
    """The best return over beliefs, by recursion over all actions, found goals included."""
    goals = [cell for cell in product(range(size), repeat=2) if max(cell) > 1]
    moves = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)]

    @cache
    def value(cell: tuple[int, int], possible: frozenset, step: int) -> float:
        """The expected return from here on, where the goal is in one of the possible cells."""
        if step == episodes * horizon:
            return 0.0
        if step % horizon == 0:
            cell = (0, 0)
        best = -np.inf
        for x, y in moves:
            after = (min(max(cell[0] + x, 0), size - 1), min(max(cell[1] + y, 0), size - 1))
            remaining = possible - {after}
            chance = (len(possible) - len(remaining)) / len(possible)
            total = 0.0
            if chance > 0.0:
                total += chance * (1.0 + value(after, frozenset({after}), step + 1))
            if chance < 1.0:
                total += (1.0 - chance) * (value(after, remaining, step + 1) - 0.1)
            best = max(best, total)
        return best

    return value((0, 0), frozenset(goals), 0)


@pytest.mark.parametrize(
    ("size", "horizon", "episodes"), [(3, 2, 2), (3, 5, 1), (3, 4, 3), (3, 1, 2), (4, 6, 1)]
)
def test_the_bayes_optimal_return_equals_that_over_all_beliefs(size, horizon, episodes) -> None:
    grid, optimum = Gridworld(size, horizon), best_walk(size, horizon, episodes)
    assert grid.bayes_optimal_return(episodes) == pytest.approx(optimum, abs=1e-9)
    # the bounds keep the best walk, however near to it the floor is
    gain = (optimum + 0.1 * episodes * horizon) * len(grid.goals)
    floor = gain - 1e-6
    assert grid._best_gain(episodes, floor) == pytest.approx(gain, abs=1e-9)


@pytest.mark.slow
def test_the_published_grid_has_the_optimum_of_the_documentation() -> None:
    assert Gridworld().bayes_optimal_return(4) == pytest.approx(37.214, abs=5e-4)


def test_an_agent_stays_in_the_grid_and_is_rewarded_on_its_goal() -> None:
    env = Gridworld(3).make()
    env.reset(options={"task": np.array([0.0, 2.0])})
    steps = [env.step(action) for action in (4, 1, 1, 1, 0, 2)]
    cells = [observation.tolist() for observation, *_ in steps]
    assert cells == [[0, 0], [0, 1], [0, 2], [0, 2], [0, 2], [1, 2]]
    assert [reward for _, reward, *_ in steps] == [-0.1, -0.1, 1.0, 1.0, 1.0, -0.1]
    assert not any(terminated for _, _, terminated, *_ in steps)
    goals = Gridworld().sample_tasks(np.random.default_rng(0), 2000)
    assert len(np.unique(goals, axis=0)) == 21
    assert (goals.max(axis=1) > 1).all()


def test_sparse_rewards_are_given_within_a_radius_of_the_goal() -> None:
    env = Semicircle().make()
    env.reset(options={"task": np.array([0.0, 1.0])})
    rewards = [env.step(np.array([0.0, 1.0], dtype=np.float32))[1] for _ in range(12)]
    np.testing.assert_allclose(rewards[:7], 0.0)
    np.testing.assert_allclose(rewards[8:], [0.9, 1.0, 0.9, 0.8], atol=1e-6)
    tasks = Semicircle().sample_tasks(np.random.default_rng(0), 1000)
    np.testing.assert_allclose(np.linalg.norm(tasks, axis=1), 1.0)
    assert tasks[:, 1].min() >= 0.0
    assert tasks[:, 0].min() < -0.9 < 0.9 < tasks[:, 0].max()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("bandit", {"arms": 1}, "arms must be an integer of at least 2, not 1"),
        ("tabular-mdp", {"states": 2.5}, "states must be an integer of at least 2, not 2.5"),
        ("gridworld", {"size": 2}, "size must be an integer of at least 3, not 2"),
        ("semicircle", {"horizon": 0}, "horizon must be an integer of at least 1, not 0"),
    ],
)
def test_sizes_of_small_families_are_validated(name: str, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_family(name, settings)


@pytest.mark.parametrize(
    ("family", "task", "message"),
    [
        (Bandit(2), [0.5, 1.2], r"probabilities of reward lie in \[0, 1\]"),
        (Gridworld(3), [1.5, 2.0], r"a goal is a cell with x and y in 0 ... 2"),
        (Gridworld(3), [0.0, 3.0], r"a goal is a cell with x and y in 0 ... 2"),
        (TabularMDP(2, 2), [*np.ones(4), *np.full(8, 0.6)], "must sum to 1"),
    ],
)
def test_impossible_tasks_are_refused_at_reset(family, task: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        family.make().reset(options={"task": np.array(task)})


def test_the_optimum_of_a_large_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="a grid of size 9 is out of reach"):
        Gridworld(9).bayes_optimal_return(1)


@pytest.mark.slow
def test_rl2_comes_close_to_optimal_play_of_bandits() -> None:
    settings = ["outer.iterations=60", "outer.meta_batch=200", "evaluation.episodes_per_task=10"]
    method = load_method(load_config("bandit_5x10_rl2", settings))
    *_, (state, _) = train(method)
    curve = method.evaluate(state.params)
    rng = np.random.default_rng(0)
    thompson = [simulated_returns(curve.tasks, 10, rng) for _ in range(10)]
    gittins = [simulated_returns(curve.tasks, 10, rng, gittins_indices(10)) for _ in range(10)]
    # on the same bandits, whose means differ by more than the rules do
    assert curve.scores.mean() > np.mean(thompson) + 0.3
    assert curve.scores.mean() == pytest.approx(np.mean(gittins), rel=0.05)
