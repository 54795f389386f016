import itertools
from collections import Counter

import networkx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.spaces.cell import OPERATIONS, Cell, Graph, canonical, connect


def every_graph(inner, operations):
    """All cells with exactly this many inner vertices, in every numbering, by brute force over the edges."""
    pairs = [[source for source in range(vertex)] for vertex in range(1, inner + 2)]
    subsets = [[c for size in range(1, len(p) + 1) for c in itertools.combinations(p, size)] for p in pairs]
    for inputs in itertools.product(*subsets):
        fed = {source for sources in inputs for source in sources}
        if all(vertex in fed for vertex in range(1, inner + 1)):
            for labels in itertools.product(operations, repeat=inner):
                yield Graph(labels, inputs)


def as_networkx(graph):
    found = networkx.DiGraph()
    for vertex, label in enumerate(("input", *graph.operations, "output")):
        found.add_node(vertex, label=label)
    found.add_edges_from((source, vertex) for vertex, sources in enumerate(graph.inputs, start=1) for source in sources)
    return found


def isomorphic(a, b):
    return networkx.is_isomorphic(as_networkx(a), as_networkx(b), node_match=lambda left, right: left["label"] == right["label"])


def test_there_are_as_many_cells_of_up_to_four_vertices_as_ec_nas_lists():
    """Source: 91 models with 4 vertices, arXiv 2210.06015, table 1."""
    assert len({canonical(graph) for inner in range(3) for graph in every_graph(inner, OPERATIONS)}) == 91


def test_there_are_as_many_cells_of_up_to_five_vertices_as_ec_nas_lists():
    """Source: 2,532 models with 5 vertices, arXiv 2210.06015, table 1; as NAS-Bench-101 allows 9 edges, the full graph is left out."""
    graphs = {canonical(graph) for inner in range(4) for graph in every_graph(inner, OPERATIONS)}
    assert sum(sum(map(len, graph.inputs)) <= 9 for graph in graphs) == 2532


@pytest.mark.filterwarnings("ignore:The hashes produced for directed graphs changed")
def test_canonical_forms_are_equal_exactly_where_a_general_algorithm_finds_an_isomorphism():
    graphs = [graph for inner in range(4) for graph in every_graph(inner, ("a", "b"))]
    by_hash = {}
    for graph in graphs:
        signature = networkx.weisfeiler_lehman_graph_hash(as_networkx(graph), node_attr="label", iterations=3)
        by_hash.setdefault(signature, []).append(graph)
    assert len(by_hash) > 100
    for alike in by_hash.values():  # an isomorphism never leaves its bucket
        forms = {}
        for graph in alike:
            forms.setdefault(canonical(graph), []).append(graph)
        for form, members in forms.items():
            assert all(isomorphic(form, member) for member in members)
        assert not any(isomorphic(a, b) for a, b in itertools.combinations(forms, 2))
    assert sum(len({canonical(graph) for graph in alike}) for alike in by_hash.values()) == len({canonical(graph) for graph in graphs})


choices = st.integers(1, 5).flatmap(
    lambda inner: st.tuples(
        st.lists(st.sampled_from(["a", "b", None]), min_size=inner, max_size=inner),
        st.tuples(*(st.sets(st.integers(0, vertex - 1)) for vertex in range(1, inner + 2))),
    )
)


@given(choices)
def test_every_choice_of_operations_and_edges_is_a_cell_and_its_form_is_stable(choice):
    graph = connect(*[choice[0], [sorted(sources) for sources in choice[1]]])
    form = canonical(graph)
    assert canonical(form) == form
    assert isomorphic(graph, form)
    assert sorted(form.operations) == sorted(operation for operation in choice[0] if operation)


def test_wished_edges_of_a_whole_cell_are_kept_as_they_are():
    assert connect(["a", "b"], [[0], [0, 1], [1, 2]]) == Graph(("a", "b"), ((0,), (0, 1), (1, 2)))


def test_loose_vertices_are_tied_and_absent_ones_leave_no_trace():
    assert connect(["a", "b"], [[], [], []]) == Graph(("a", "b"), ((0,), (0,), (1, 2)))
    assert connect([None, "b"], [[0], [1], [1]]) == Graph(("b",), ((0,), (1,)))
    assert connect([None], [[], [1]]) == Graph((), ((0,),))


def test_random_choices_are_spread_over_the_graphs(contract):
    """No graph may own a large share of the encodings, or a sampler would draw it again and again."""
    found = Counter(Cell().key(candidate) for candidate, _ in contract.trials(Cell(recipe=contract.fixed()), 1500))
    assert len(found) > 500
    assert found.most_common(1)[0][1] < 0.05 * 1500


@pytest.mark.parametrize(
    ("operations", "inputs", "said"),
    [
        (("a",), ((0,),), "needs inputs for 2 vertices"),
        (("a",), ((1,), (1,)), "inputs of vertex 1"),
        (("a",), ((), (1,)), "inputs of vertex 1"),
        (("a", "b"), ((0,), (0,), (2,)), r"vertices \[1\] feed nothing"),
        (("a", "b"), ((0,), (1, 0), (2,)), "ascending"),
    ],
)
def test_what_is_no_cell_is_refused(operations, inputs, said):
    with pytest.raises(ValueError, match=said):
        Graph(operations, inputs)


def test_a_graph_that_is_too_large_for_the_exact_form_is_refused():
    with pytest.raises(ValueError, match="at most 5 inner vertices, got 6"):
        canonical(connect(["a"] * 6, [[]] * 7))
