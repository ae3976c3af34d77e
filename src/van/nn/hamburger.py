"""Non-negative matrix factorisation as a layer, and the Hamburger around it.

Source: Is Attention Better Than Matrix Decomposition? (ICLR 2021), and the VAN segmentation code of 2022-03.

Shape legend: N batch, D channels, H height, W width, P = H·W positions, R rank.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6  # in the denominators of the multiplicative updates


class NMF(nn.Module):
    """x ≈ bases · coefficientsᵀ by multiplicative updates, returned as the reconstruction: (N, D, H, W) -> same.

    Expects non-negative x. Computes in float32 under autocast (float64 stays float64).
    In training the bases start at random, drawn at every forward as published; in eval from the buffer `bases`
    (D, R), L2-normalised over D, so that the same image gives the same answer twice. The buffer may be overwritten,
    also by one that broadcasts over the batch (N, D, R).
    """

    bases: Tensor

    def __init__(
        self, channels: int, rank: int, *, train_steps: int = 6, eval_steps: int = 7, bases_seed: int = 0
    ) -> None:
        super().__init__()
        self.rank, self.train_steps, self.eval_steps = rank, train_steps, eval_steps
        self.register_buffer("bases", draw_bases(channels, rank, bases_seed))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self._factorise(x if x.dtype == torch.float64 else x.float()).to(x.dtype)

    def _factorise(self, x: Tensor) -> Tensor:
        matrix = x.flatten(2)  # (N, D, P)
        bases = self._start(matrix)  # (N, D, R)
        coefficients = F.softmax(matrix.mT @ bases, dim=-1)  # (N, P, R)
        for _ in range(self.train_steps if self.training else self.eval_steps):
            coefficients = update_coefficients(matrix, bases, coefficients)
            bases = update_bases(matrix, bases, coefficients)
        coefficients = update_coefficients(matrix, bases, coefficients)
        return (bases @ coefficients.mT).view_as(x)

    def _start(self, matrix: Tensor) -> Tensor:
        n, d, _ = matrix.shape
        if self.training:
            return F.normalize(torch.rand(n, d, self.rank, dtype=matrix.dtype, device=matrix.device), dim=1)
        return self.bases.to(matrix.dtype).expand(n, d, -1)

    def extra_repr(self) -> str:
        return f"channels={self.bases.shape[-2]}, rank={self.rank}, steps={self.train_steps}/{self.eval_steps}"


def update_coefficients(matrix: Tensor, bases: Tensor, coefficients: Tensor) -> Tensor:
    """One multiplicative step: matrix (N, D, P), bases (N, D, R), coefficients (N, P, R) -> (N, P, R)."""
    return coefficients * (matrix.mT @ bases) / (coefficients @ (bases.mT @ bases) + EPSILON)


def update_bases(matrix: Tensor, bases: Tensor, coefficients: Tensor) -> Tensor:
    """One multiplicative step: matrix (N, D, P), bases (N, D, R), coefficients (N, P, R) -> (N, D, R)."""
    return bases * (matrix @ coefficients) / (bases @ (coefficients.mT @ coefficients) + EPSILON)


def draw_bases(channels: int, rank: int, seed: int) -> Tensor:
    """Uniform bases (D, R), L2-normalised over D, from a seed; always on the CPU, so every device gets the same."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return F.normalize(torch.rand(channels, rank, generator=generator, device="cpu"), dim=0)


class Hamburger(nn.Module):
    """1x1, ReLU, NMF, 1x1, GroupNorm around a shortcut, ReLU: (N, D, H, W) -> same."""

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.lower = nn.Conv2d(channels, channels, 1)
        self.ham = NMF(channels, rank)
        self.upper = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.GroupNorm(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.upper(self.ham(F.relu(self.lower(x))))))
