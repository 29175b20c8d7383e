import pytest
import torch
import torch.nn.functional as F

from pipeline.models.response_norm import ResponseNorm, WithinMapNorm

N, K, ALPHA, BETA = 5, 2.0, 1e-4, 0.75  # paper, section 3.3


def the_papers_formula(a: torch.Tensor, columns: int = 1) -> torch.Tensor:
    """b_i = a_i / (k + alpha * sum over j = max(0, i - n/2) .. min(N - 1, i + n/2) of a_j^2)^beta, map by map."""
    b = torch.empty_like(a)
    maps = a.shape[1] // columns
    for i in range(a.shape[1]):
        first, last = i // maps * maps, i // maps * maps + maps - 1
        neighbors = a[:, max(first, i - N // 2) : min(last, i + N // 2) + 1]
        b[:, i] = a[:, i] / (K + ALPHA * (neighbors**2).sum(1)) ** BETA
    return b


@pytest.fixture
def activations() -> torch.Tensor:
    return 100 * torch.randn(3, 12, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("columns", [1, 2])
def test_it_is_the_papers_formula_with_alpha_undivided(activations: torch.Tensor, columns: int) -> None:
    norm = ResponseNorm(N, K, ALPHA, columns)
    torch.testing.assert_close(norm(activations), the_papers_formula(activations, columns), rtol=1e-12, atol=0)
    torchs = F.local_response_norm(activations, N, alpha=ALPHA * N, beta=BETA, k=K)  # which divides α by n
    torch.testing.assert_close(ResponseNorm(N, K, ALPHA)(activations), torchs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_in_float32_it_stays_within_1e_6_of_the_float64_formula(
    activations: torch.Tensor, memory_format: torch.memory_format
) -> None:
    single = activations.float().contiguous(memory_format=memory_format)
    torch.testing.assert_close(
        ResponseNorm(N, K, ALPHA)(single).double(), the_papers_formula(single.double()), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(
    "norm", [ResponseNorm(N, K, 0.3), ResponseNorm(N, K, 0.3, columns=2), WithinMapNorm(5, 1.0, 0.3)]
)
def test_its_gradient_is_the_numerical_one(norm: torch.nn.Module) -> None:
    x = torch.randn(2, 6, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, (x,))


def test_within_a_map_it_sums_over_the_patch_and_takes_nothing_from_beyond_the_edge() -> None:
    x = torch.randn(1, 2, 6, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = torch.empty_like(x)
    for i in range(6):
        for j in range(7):
            patch = x[:, :, max(0, i - 2) : i + 3, max(0, j - 2) : j + 3]
            expected[:, :, i, j] = x[:, :, i, j] / (1 + 0.5 * (patch**2).sum((2, 3))) ** BETA
    torch.testing.assert_close(WithinMapNorm(5, 1.0, 0.5)(x), expected, rtol=1e-12, atol=0)
