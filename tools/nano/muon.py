"""Muon (Keller Jordan, 2024): momentum whose update is made orthogonal by Newton-Schulz steps.

For the matrices inside the layers it needs clearly fewer tokens than AdamW at this size.
Matrices of one shape are handled as one batch, shared out among the processes of a training.
"""

import torch
import torch.distributed as dist


def orthogonalized(g: torch.Tensor, compute: torch.dtype, steps: int = 5) -> torch.Tensor:
    """Approximately U V^T of each matrix of the batch, by a quintic iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.to(compute)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


def _shared_out(g: torch.Tensor, compute: torch.dtype) -> torch.Tensor:
    """`orthogonalized`, each process doing its part of the batch."""
    if not dist.is_initialized():
        return orthogonalized(g, compute)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    out = torch.zeros_like(g)
    out[rank::ranks] = orthogonalized(g[rank::ranks], compute)
    dist.all_reduce(out)
    return out


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0, compute: torch.dtype = torch.bfloat16):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.compute = compute

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            by_shape: dict[torch.Size, list] = {}
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for shape, params in by_shape.items():
                updates = []
                for p in params:
                    momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    momentum.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(momentum, group["momentum"]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for p, update in zip(params, _shared_out(torch.stack(updates), self.compute)):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * scale)
