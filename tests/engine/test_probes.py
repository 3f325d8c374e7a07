import pytest
import torch

from disp_engine.saliency.probes import PROBES, Estimator, eigen_probes, orthogonal_probes

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


def test_orthogonal_probes_of_as_many_as_there_are_directions_are_the_fisher_information() -> None:
    p = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)).double().softmax(-1)
    q = orthogonal_probes(p, 12, torch.Generator().manual_seed(1)).flatten(2)
    for sample in range(2):
        blocks = [torch.diag(row) - torch.outer(row, row) for row in p[sample]]
        torch.testing.assert_close(q[:, sample].T @ q[:, sample] / 12, torch.block_diag(*blocks))


def test_few_orthogonal_probes_are_right_about_the_largest_directions_and_unbiased() -> None:
    """Two probes of two rows, one of them far less certain: its two directions do not mix."""
    p = torch.tensor([[[0.4, 0.3, 0.3], [0.998, 0.001, 0.001]]], dtype=torch.float64)
    fisher = torch.block_diag(*[torch.diag(row) - torch.outer(row, row) for row in p[0]])
    generator = torch.Generator().manual_seed(0)
    draws = [orthogonal_probes(p, 2, generator).flatten(2)[:, 0] for _ in range(4000)]
    products = torch.stack([q.T @ q / 2 for q in draws])
    torch.testing.assert_close(products[0][:3, :3], fisher[:3, :3])
    torch.testing.assert_close(products.mean(0), fisher, rtol=0, atol=2e-3)
