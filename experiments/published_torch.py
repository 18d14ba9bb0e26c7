"""The published training step in PyTorch, written from the paper, for comparison only.

One step takes a block: target similarities from the frames, the code through a sign with the
derivative 1 - tanh^2, all products of two bits, the squared errors of all pairs, their weighted
sum, and its gradient by automatic differentiation. Source: [ICASSP20] section 3 and Algorithm 2.
"""

import statistics
import time

import numpy as np
import torch


class PublishedStep:
    """An optimiser of one hyperplane."""

    def __init__(self, hyperplane: np.ndarray, sigma2: float, config, device: str):
        """Start from a hyperplane (D + 1,), with the learning rate and decays of ``config``."""
        self.hyperplane = torch.tensor(
            hyperplane[:, None], dtype=torch.float32, device=device, requires_grad=True
        )
        self.sigma2 = sigma2
        self.adam = torch.optim.Adam(
            [self.hyperplane], lr=config.learning_rate, betas=(config.adam_b1, config.adam_b2)
        )

    def __call__(self, frames: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """One step on frames (B, D) of unit length and weights (B, B); the loss before it."""
        target = torch.exp((frames @ frames.T - 1) / self.sigma2)
        activations = frames @ self.hyperplane[:-1] + self.hyperplane[-1]
        smooth = torch.tanh(activations)
        # Straight through: the value of the sign, the derivative of tanh.
        code = smooth + (torch.where(activations >= 0, 1.0, -1.0) - smooth).detach()
        loss = torch.sum(weights * ((code @ code.T + 1) / 2 - target) ** 2)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return loss.detach()


def run(
    hyperplane: np.ndarray, blocks: np.ndarray, sigma2: float, config, repeats: int
) -> tuple[np.ndarray, float]:
    """Go through blocks (G, B, D) once with uniform weights, then time further steps.

    Returns:
        The G losses of the pass, and the median seconds of a later step.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    step = PublishedStep(hyperplane, sigma2, config, device)
    frames = torch.tensor(blocks, dtype=torch.float32, device=device)
    weights = torch.full(2 * blocks.shape[1:2], blocks.shape[1] ** -2.0, device=device)
    losses = np.array([float(step(block, weights)) for block in frames])
    seconds = []
    for index in range(repeats):
        start = time.perf_counter()
        float(step(frames[index % len(frames)], weights))
        seconds.append(time.perf_counter() - start)
    return losses, statistics.median(seconds)
