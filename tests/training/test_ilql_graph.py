"""Implicit Q-learning on a graph whose best paths are known: from random walks alone it learns nearly the shortest ways.

As in Snell et al. 2022: the walks are long detours, so copying them makes long detours, and copying the best of
them still does not join good halves of different walks. The optimum is computed by value iteration, returns by a linear system.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from heedful.config import ILQLSection
from heedful.models.ilql import ILQLHeads
from heedful.store import read_metrics
from heedful.training.ilql import ILQL, Episode, train

NUM_NODES, NUM_EDGES, NUM_WALKS, GOAL = 16, 3, 300, 0
GAMMA = 0.9


@dataclass(frozen=True)
class Graph:
    """edges[i]: where one can go from node i; the goal absorbs."""

    edges: list[list[int]]

    @property
    def adjacency_NN(self) -> Tensor:
        matrix = torch.zeros(NUM_NODES, NUM_NODES, dtype=torch.bool)
        for node, neighbours in enumerate(self.edges):
            matrix[node, neighbours] = True
        return matrix

    def shortest_N(self) -> Tensor:
        """Steps to the goal from each node, by value iteration until nothing changes."""
        steps = torch.full((NUM_NODES,), torch.inf, dtype=torch.float64)
        steps[GOAL] = 0
        while True:
            reach = torch.where(self.adjacency_NN, steps[None, :], torch.inf).amin(1) + 1
            reach[GOAL] = 0
            if torch.equal(reach, steps):
                return steps
            steps = reach

    def expected_steps_N(self, policy_NN: Tensor) -> Tensor:
        """Mean steps to the goal from each node under a policy, exactly: (I - P) t = 1 over all nodes but the goal."""
        rest = [node for node in range(NUM_NODES) if node != GOAL]
        inner = torch.eye(len(rest), dtype=torch.float64) - policy_NN.double()[rest][:, rest]
        found = torch.zeros(NUM_NODES, dtype=torch.float64)
        found[rest] = torch.linalg.solve(inner, torch.ones(len(rest), dtype=torch.float64))
        return found


def random_graph(seed: int) -> Graph:
    """A few edges from each node, such that the goal can be reached from everywhere (drawn again until it can)."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        edges = [torch.randperm(NUM_NODES, generator=generator)[:NUM_EDGES].tolist() for _ in range(NUM_NODES)]
        graph = Graph([[n for n in ends if n != i] for i, ends in enumerate(edges)])
        if all(graph.edges) and bool((graph.shortest_N() < torch.inf).all()):
            return graph


def random_walks(graph: Graph, seed: int) -> list[list[int]]:
    """From a random node on, a random edge at a time, until the goal."""
    generator = torch.Generator().manual_seed(seed)
    walks = []
    while len(walks) < NUM_WALKS:
        walk = [int(torch.randint(1, NUM_NODES, (1,), generator=generator))]
        while walk[-1] != GOAL:
            ends = graph.edges[walk[-1]]
            walk.append(ends[int(torch.randint(len(ends), (1,), generator=generator))])
        walks.append(walk)
    return walks


def episode_of(walk: list[int]) -> Episode:
    """States are one-hot, actions the next node, and the step to the goal is worth 1."""
    rewards = torch.zeros(len(walk) - 1)
    rewards[-1] = 1
    return Episode(torch.eye(NUM_NODES)[walk[:-1]], torch.tensor(walk[1:]), rewards)


def copied(walks: list[list[int]]) -> Tensor:
    """Behaviour cloning: the shares with which the walks go on from each node; uniform where they never were."""
    # Exactly 0 where there is no edge: a large beta would make a way of the smallest probability.
    counts = torch.zeros(NUM_NODES, NUM_NODES, dtype=torch.float64)
    for walk in walks:
        for here, there in pairwise(walk):
            counts[here, there] += 1
    counts[counts.sum(1) == 0] = 1
    return counts / counts.sum(1, keepdim=True)


def settings(**more: object) -> ILQLSection:
    given = {
        "rank": NUM_NODES,
        "width": 64,
        "epochs": 16,
        "learning_rate": 0.01,
        "gamma": GAMMA,
        "expectile": 0.98,
        "cql_coef": 0.001,
        "polyak": 0.05,
        "batch_episodes": 16,
    }
    return ILQLSection.model_validate(given | more)


def learned_policy(walks: list[list[int]], chosen: ILQLSection, *, beta: float, seed: int = 0) -> Tensor:
    heads = ILQLHeads(torch.eye(NUM_NODES), rank=chosen.rank, width=chosen.width, seed=seed)
    method = ILQL(heads, [episode_of(walk) for walk in walks], [], settings=chosen, seed=seed)
    for step in range(chosen.epochs * -(-len(walks) // chosen.batch_episodes)):
        method.step(step)
    weigh = heads.reweight(beta=beta, top_k=0)
    with torch.no_grad():
        return torch.softmax(weigh(torch.eye(NUM_NODES), copied(walks).float().log()), dim=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_learns_nearly_the_shortest_ways_from_random_walks(seed: int) -> None:
    graph = random_graph(seed)
    walks = random_walks(graph, seed)
    best = float(graph.shortest_N().mean())
    cloned = float(graph.expected_steps_N(copied(walks)).mean())
    fastest = sorted(walks, key=len)[: NUM_WALKS // 5]
    filtered = float(graph.expected_steps_N(copied(fastest)).mean())
    found = float(graph.expected_steps_N(learned_policy(walks, settings(), beta=100.0)).mean())
    print(f"steps: optimum {best:.2f}, ILQL {found:.2f}, filtered cloning {filtered:.2f}, cloning {cloned:.2f}")
    assert best - 1e-9 <= found < 1.1 * best
    assert found < 0.6 * cloned
    assert found < 0.9 * filtered


def test_without_advantages_it_is_behaviour_cloning() -> None:
    walks = random_walks(random_graph(0), 0)
    torch.testing.assert_close(learned_policy(walks, settings(epochs=1), beta=0.0), copied(walks).float())


def test_a_value_is_the_discounted_distance() -> None:
    """V of a node d steps from the goal is gamma^(d-1), within what an expectile below 1 and a finite training leave."""
    graph = random_graph(0)
    chosen = settings()
    heads = ILQLHeads(torch.eye(NUM_NODES), rank=chosen.rank, width=chosen.width, seed=0)
    walks = random_walks(graph, 0)
    method = ILQL(heads, [episode_of(walk) for walk in walks], [], settings=chosen, seed=0)
    for step in range(300):
        method.step(step)
    expected = GAMMA ** (graph.shortest_N()[1:] - 1)
    with torch.no_grad():
        values = heads.values(torch.eye(NUM_NODES))[1:].double()
    assert float((values - expected).abs().max()) < 0.1


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    episodes = [episode_of(walk) for walk in random_walks(random_graph(0), 0)[:20]]
    short = settings(epochs=3, batch_episodes=4, checkpoint_every=4, eval_every=5)
    found = []
    for name, stop_at in (("whole", None), ("cut", 10)):

        def progress(done: int, total: int, note: str, stop_at: int | None = stop_at) -> None:
            if done == stop_at:
                raise KeyboardInterrupt

        def fresh() -> ILQLHeads:
            return ILQLHeads(torch.eye(NUM_NODES), rank=4, width=8, seed=1)

        folder = tmp_path / name / "ilql"
        pairs = [(episodes[0], episodes[1])]
        if stop_at is not None:
            with pytest.raises(KeyboardInterrupt):
                train(fresh(), episodes, pairs, folder, settings=short, seed=0, progress=progress)
        heads = fresh()
        _, steps = train(heads, episodes, pairs, folder, settings=short, seed=0)
        assert steps == 15
        rows = [{key: value for key, value in row.items() if key != "time"} for row in read_metrics(tmp_path / name)]
        found.append((rows, [tensor.tolist() for tensor in heads.state_dict().values()]))
    assert len(found[0][0]) == 15
    assert found[0] == found[1]
