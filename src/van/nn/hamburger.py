"""Non-negative matrix factorisation as a layer, and the Hamburger around it.

Source: Is Attention Better Than Matrix Decomposition? (ICLR 2021), and the VAN segmentation code of 2022-03.

Shape legend: N batch, D channels, H height, W width, P = H·W positions, R rank.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError

EPSILON = 1e-6  # in the denominators of the multiplicative updates


class NMF(nn.Module):
    """x ≈ bases · coefficientsᵀ by multiplicative updates, returned as the reconstruction: (N, D, H, W) -> same.

    Expects non-negative x. Computes in float32 under autocast and in half precision (float64 stays float64); the
    gradient goes through every update, as published.
    In training the bases start at random, drawn at every forward as published; in eval from the buffer `bases`
    (D, R), L2-normalised over D, so that the same image gives the same answer twice. The buffer may be overwritten,
    also by one that broadcasts over the batch (1 or N, D, R).
    """

    bases: Tensor

    def __init__(
        self, channels: int, rank: int, *, train_steps: int = 6, eval_steps: int = 7, bases_seed: int = 0
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ConfigError(f"the rank of the factorisation is {rank}; expected at least 1, e.g. 64")
        self.channels, self.rank, self.bases_seed = channels, rank, bases_seed
        self.train_steps, self.eval_steps = train_steps, eval_steps
        self.register_buffer("bases", draw_bases(channels, rank, bases_seed))

    def reset_bases(self, seed: int | None = None) -> None:
        """Draw the buffer again, from `seed` or the one it was built with; device and precision are kept."""
        bases = draw_bases(self.channels, self.rank, self.bases_seed if seed is None else seed)
        self.bases = bases.to(self.bases.device, self.bases.dtype)

    def forward(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        device = x.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self._factorise(wide).to(x.dtype)
        return self._factorise(wide).to(x.dtype)  # no autocast region in exported graphs

    def _factorise(self, x: Tensor) -> Tensor:
        matrix = x.flatten(2)  # (N, D, P)
        bases = self.first_bases(matrix)  # (N, D, R)
        coefficients = F.softmax(matrix.mT @ bases, dim=-1)  # (N, P, R)
        for _ in range(self.train_steps if self.training else self.eval_steps):
            coefficients = update_coefficients(matrix, bases, coefficients)
            bases = update_bases(matrix, bases, coefficients)
        coefficients = update_coefficients(matrix, bases, coefficients)
        return (bases @ coefficients.mT).view_as(x)

    def first_bases(self, matrix: Tensor) -> Tensor:
        """What the updates start from, (N, D, R), of the type and on the device of matrix (N, D, P)."""
        n, d, _ = matrix.shape
        if self.training:
            return F.normalize(torch.rand(n, d, self.rank, dtype=matrix.dtype, device=matrix.device), dim=1)
        # also to the device: a network built on the meta device keeps real bases
        return self.bases.to(matrix.device, matrix.dtype).expand(n, d, -1)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, rank={self.rank}, steps={self.train_steps}/{self.eval_steps}"


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


def factorisations(model: nn.Module) -> list[NMF]:
    """The NMF modules of a model; empty for networks without a Ham head."""
    return [module for module in model.modules() if isinstance(module, NMF)]


def reseed_bases(model: nn.Module, seed: int) -> None:
    """Draw the evaluation bases of a model's NMF from `seed`; seed 0 is what every network starts with.

    Published Ham results are random by nature (bases drawn at every forward); several seeds show the spread.
    Raises ConfigError for a model without an NMF.
    """
    found = factorisations(model)
    if not found:
        raise ConfigError(f"{type(model).__name__} has no NMF and so no bases to draw; only Ham heads have")
    for module in found:
        module.reset_bases(seed)


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
