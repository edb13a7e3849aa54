from __future__ import annotations

import random

import pytest

from policies.fleet.api import LinkState
from policies.fleet.default import WORTH, Default
from policies.fleet.exact import enumerate_mappings
from policies.fleet.improve import improve
from policies.fleet.jellyfish import anneal
from policies.fleet.problem import Place, find_places, make_problem, name_places
from tests.builders.fleet import POINTS, all_mappings, demand, draw_problem, point, standing


def test_a_frame_may_wait_for_a_batch_and_be_part_of_the_next() -> None:
    node = [standing("near", points=[point(0, 0.6, 10)])]
    served = [(0, 0)]
    enough = make_problem(node, [demand("a", deadline=0.02)])
    assert enough.keeps(0, served)
    short = make_problem(node, [demand("a", deadline=0.0199)])
    assert not short.keeps(0, served)


def test_a_node_keeps_up_with_the_batch_size_that_its_rate_needs() -> None:
    node = [standing("near", points=[point(0, 0.6, 10, 12)])]
    clients = [demand("a", fps=90, deadline=0.03), demand("b", fps=70, deadline=0.03)]
    problem = make_problem(node, clients)
    assert problem.keeps(0, [(0, 0), (1, 0)])  # 160 < 2/12 ms, and 2·12 ms within 30 ms
    tight = make_problem(node, [demand("a", fps=90, deadline=0.022), clients[1]])
    assert tight.keeps(0, [(0, 0)])
    assert not tight.keeps(0, [(0, 0), (1, 0)])
    many = make_problem(node, [demand("a", fps=167, deadline=1.0)])
    assert not many.keeps(0, [(0, 0)])


def test_points_side_by_side_share_a_cycle() -> None:
    node = [standing("near")]
    clients = [demand("a", deadline=0.031), demand("b", deadline=0.046)]
    problem = make_problem(node, clients)
    assert problem.keeps(0, [(0, 0), (1, 2)])  # 5 + 20 ms, and 5 or 20 more
    hurried = make_problem(node, [demand("a", deadline=0.029), clients[1]])
    assert not hurried.keeps(0, [(0, 0), (1, 2)])


def test_slow_nodes_slow_links_and_floors_narrow_what_is_possible() -> None:
    asked = demand("a", fps=10, deadline=0.05, near=LinkState(0.9e6))
    points = [point(0, 0.6, 5, payload=10e3), point(1, 0.8, 5, payload=100e3)]
    (budgets,) = make_problem([standing("near", points=points)], [asked]).budgets
    assert budgets[0][0] == pytest.approx(0.05 - 10 / 900)
    assert budgets[0][1] < 0  # 1 MB a second does not pass
    slow = make_problem([standing("near", points=points, slowdown=5.0)], [asked])
    assert not slow.keeps(0, [(0, 0)])


def test_points_that_another_one_beats_are_left_out() -> None:
    points = [*POINTS, point(3, 0.75, 25)]
    problem = make_problem([standing("near", points=points)], [demand("a")])
    assert [each.point.exit for each in problem.points[0]] == [0, 1, 2]


@pytest.mark.parametrize("seed", range(12))
def test_the_enumeration_is_the_best_with_one_point_a_node(seed: int) -> None:
    problem = draw_problem(seed, 2, 4)
    found = enumerate_mappings(problem)
    assert found is not None and problem.feasible(found)
    best = max(map(problem.value, all_mappings(problem, one_point=True)))
    assert problem.value(found) == pytest.approx(best)


def test_more_than_can_be_enumerated_is_left_to_others() -> None:
    assert enumerate_mappings(draw_problem(0, 5, 3)) is None
    assert enumerate_mappings(draw_problem(0, 2, 9)) is None


def test_annealing_comes_near_to_the_best_and_uses_one_point_a_node() -> None:
    shares = []
    for seed in range(30):
        problem = draw_problem(seed, 3, 6)
        found = anneal(problem, [None] * 6, random.Random(seed))
        assert problem.feasible(found)
        used = {place for place in found if place is not None}
        assert len({node for node, _ in used}) == len(used)
        exact = enumerate_mappings(problem)
        assert exact is not None
        shares.append(problem.value(found) / problem.value(exact))
    assert max(shares) <= 1 + 1e-9
    assert sum(shares) / len(shares) > 0.9


@pytest.mark.parametrize(("nodes", "clients"), [(1, 5), (3, 6), (4, 24)])
def test_the_default_is_never_worse_than_annealing_or_far_from_enumeration(
    nodes: int, clients: int
) -> None:
    for seed in range(8):
        problem = draw_problem(seed, nodes, clients)
        nobody = [None] * clients
        found = Default(seed).solve(problem, nobody)
        assert problem.feasible(found)
        annealed = anneal(problem, nobody, random.Random(seed))
        assert problem.value(found) >= problem.value(annealed) - 1e-9
        exact = enumerate_mappings(problem)
        if exact is not None:
            assert WORTH * problem.value(found) >= problem.value(exact) - 1e-9


def test_the_default_leaves_the_annealed_mapping_only_for_a_gain() -> None:
    left = 0
    for seed in range(20):
        policy, chance = Default(seed), random.Random(seed)
        annealed: list[Place | None] = [None] * 6
        found = annealed
        for period in range(3):
            problem = draw_problem(100 * seed + period, 3, 6)
            annealed = anneal(problem, annealed, chance)
            found = policy.solve(problem, found)
            assert found == annealed or problem.value(found) > WORTH * problem.value(annealed)
            left += found != annealed
    assert 0 < left < 60


@pytest.mark.parametrize("seed", range(12))
def test_local_search_only_improves_and_stays_feasible(seed: int) -> None:
    problem = draw_problem(seed, 2, 4)
    start = anneal(problem, [None] * 4, random.Random(seed))
    found = improve(problem, start, 2000)
    assert problem.feasible(found)
    best = max(map(problem.value, all_mappings(problem, one_point=False)))
    assert problem.value(start) - 1e-9 <= problem.value(found) <= best + 1e-9
    assert improve(problem, start, 0) == start


def test_a_site_without_nodes_or_clients_has_an_empty_mapping() -> None:
    for problem in (make_problem([], [demand("a")]), make_problem([standing("near")], [])):
        assert list(Default().solve(problem, [None] * len(problem.clients))) == [None] * len(
            problem.clients
        )
        assert anneal(problem, [], random.Random(0)) == [None] * len(problem.clients)


def test_places_are_found_again_in_the_next_period() -> None:
    problem = draw_problem(3, 4, 6)
    mapping = anneal(problem, [None] * 6, random.Random(0))
    named = name_places(problem, mapping)
    assert find_places(problem, named) == mapping
    one_node = draw_problem(3, 1, 7)
    assert find_places(one_node, named) == [
        place if place is not None and place[0] == 0 else None for place in [*mapping, None]
    ]


def test_clients_that_may_leave_out_frames_gain_by_larger_ones() -> None:
    points = [point(0, 0.2, 5, payload=10e3), point(1, 0.8, 5, payload=30e3)]
    asked = [demand("a", fps=20, near=LinkState(0.5e6))]
    node = [standing("near", points=points)]
    all_frames, fewer = make_problem(node, asked), make_problem(node, asked, skipping=True)
    assert enumerate_mappings(all_frames) == [(0, 0)]
    assert enumerate_mappings(fewer) == [(0, 1)]
    # 20·30 kB a second are more than 0.9·500 kB, and every other frame is less
    assert fewer.value([(0, 1)]) == pytest.approx(0.8 / 2)
    assert fewer.without_skipping().rates == all_frames.rates
    assert fewer.without_skipping().budgets == all_frames.budgets
