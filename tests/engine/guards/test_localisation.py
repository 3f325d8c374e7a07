import numpy as np
import pytest
from sklearn.cluster import KMeans

from disp_engine.guards.localisation import CLUSTERINGS, contrast, suspected

HIJACKED = np.array([0.010, 0.012, 0.011, 0.300, 0.009, 0.280, 0.010, 0.011])


@pytest.mark.parametrize("clustering", CLUSTERINGS)
def test_the_two_tokens_that_draw_all_attention_are_suspected(clustering: str) -> None:
    if clustering == "dbscan":  # they are noise to it, and noise is its cluster of highest mean
        assert suspected(HIJACKED / 100, clustering) == {3, 5}
    else:
        assert suspected(HIJACKED, clustering) == {3, 5}


def test_kmeans_cuts_where_both_halves_are_tightest() -> None:
    """0, 1, 5, 6: {0, 1} and {5, 6} leave 1.0 of spread; {0} and {1, 5, 6} would leave 14."""
    assert suspected(np.array([5.0, 0.0, 6.0, 1.0]), "kmeans") == {0, 2}
    assert suspected(np.array([0.0, 0.0, 0.0, 1.0, 1.1]), "kmeans") == {3, 4}


@pytest.mark.parametrize("seed", range(6))
def test_kmeans_is_that_of_scikit_learn(seed: int) -> None:
    v = np.random.default_rng(seed).gamma(0.5, size=60)
    found = KMeans(2, n_init=10, random_state=0).fit(v[:, None])
    high = int(found.cluster_centers_[:, 0].argmax())
    assert suspected(v, "kmeans") == set((found.labels_ == high).nonzero()[0].tolist())


@pytest.mark.parametrize("clustering", CLUSTERINGS)
def test_where_all_are_looked_at_alike_nobody_is_suspected(clustering: str) -> None:
    assert suspected(np.full(9, 0.2), clustering) == frozenset()
    assert suspected(np.array([0.3]), clustering) == frozenset()


def test_dbscan_takes_noise_as_a_cluster_of_its_own() -> None:
    """Three clusters by eps 1e-4: four values near 0, three near 1, and one far above as noise."""
    v = np.array([0.0, 0.00005, 0.0001, 0.00015, 1.0, 1.00005, 1.0001, 7.0])
    assert suspected(v, "dbscan") == {7}


def test_contrast_is_mean_against_mean() -> None:
    v = np.array([1.0, 8.0, 1.0, 10.0])
    assert contrast(v, frozenset({1, 3})) == 9.0
    assert contrast(v, frozenset({0, 1, 2, 3})) == contrast(v, frozenset()) == 1.0
    assert contrast(np.array([0.0, 2.0]), frozenset({1})) == np.inf
