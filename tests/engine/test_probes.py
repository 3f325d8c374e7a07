import pytest
import torch

from disp_engine.saliency.probes import PROBES, Estimator, eigen_probes

EACH = pytest.mark.parametrize("estimator", PROBES)


@EACH
def test_probe_covariance_is_the_fisher_information(estimator: Estimator) -> None:
    p = torch.tensor([[[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3]]], dtype=torch.float64)
    q = PROBES[estimator](p, 200_000, torch.Generator().manual_seed(0))[:, 0]
    for row in range(2):
        fisher = torch.diag(p[0, row]) - torch.outer(p[0, row], p[0, row])
        covariance = q[:, row].T @ q[:, row] / len(q)
        assert torch.allclose(covariance, fisher, atol=3e-3)


@EACH
def test_probes_lie_in_the_range_of_the_fisher_information(estimator: Estimator) -> None:
    p = torch.tensor([[[0.5, 0.3, 0.2]]], dtype=torch.float64)
    q = PROBES[estimator](p, 20, torch.Generator().manual_seed(0))
    assert torch.allclose(q.sum(-1), torch.zeros(20, 1, 1, dtype=torch.float64), atol=1e-12)


@EACH
def test_a_certain_row_has_no_probe(estimator: Estimator) -> None:
    p = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    assert float(PROBES[estimator](p, 5, torch.Generator().manual_seed(0)).abs().max()) < 1e-12


def test_eigen_probes_of_one_direction_have_no_variance() -> None:
    # K = 2 has one eigenvector with an eigenvalue, 2 p (1 - p): every probe squares to it.
    p = torch.tensor([[[0.9, 0.1]]], dtype=torch.float64)
    q = eigen_probes(p, 50, torch.Generator().manual_seed(0))
    assert torch.allclose(q.square().sum(-1), torch.tensor(0.18, dtype=torch.float64))
