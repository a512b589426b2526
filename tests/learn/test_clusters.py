import numpy as np
import pytest
from scipy.cluster.vq import kmeans2

from minari_stitch.learn.clusters import clusters


def heaps(per=200):
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(centre, 0.1, (per, 2)) for centre in (0, 5, 10)])


@pytest.mark.parametrize("sample", [60, 10_000])
def test_heaps_are_found_from_a_sample_and_all_states_assigned(sample):
    labels, count = clusters(heaps(), 3, np.random.default_rng(1), sample=sample)
    assert count == 3 and len(labels) == 600
    assert [len(set(labels[part : part + 200].tolist())) for part in (0, 200, 400)] == [1, 1, 1]
    assert len(set(labels[::200].tolist())) == 3
    again, _ = clusters(heaps(), 3, np.random.default_rng(1), sample=sample)
    np.testing.assert_array_equal(labels, again)


def test_distinct_states_that_are_few_are_their_own_clusters():
    states = np.array([[0.0], [1.0], [0.0], [2.0]])
    labels, count = clusters(states, 8, np.random.default_rng(0), sample=100)
    assert count == 3 and labels.tolist() == [0, 1, 0, 2]


def test_an_empty_cluster_is_no_matter_for_a_warning(monkeypatch):
    def far(states, count, **options):
        """From centres of which no state is nearest to the last."""
        first = np.concatenate([states[: count - 1], [[1e6, 1e6]]])
        return kmeans2(states, first, iter=options["iter"], minit="matrix")

    with pytest.warns(UserWarning, match="empty"):
        far(heaps(), 3, iter=2)
    monkeypatch.setattr("minari_stitch.learn.clusters.kmeans2", far)
    labels, count = clusters(heaps(), 3, np.random.default_rng(0), sample=1000)  # warnings are errors here
    assert count == 3 and labels.max() == 1
