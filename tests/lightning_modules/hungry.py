"""Autoencoders that ask for more memory than any machine has when they are given too many rows at once: what fails is
the allocator, and as it fails for everyone.
"""

import torch

from lightning_modules.autoencoders import ReLU, TopK

TOO_MUCH = 2**56


class _Passes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rows):
        ctx.rows = rows
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        if grad.shape[0] > ctx.rows:
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        return grad, None


class _Hungry:
    """In training at most `rows_forward` rows fit into memory on the way forward, `rows_backward` on the way back."""

    rows_forward = 10**9
    rows_backward = 10**9

    def forward(self, x):
        if self.training and x.shape[0] > self.rows_forward:
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        codes, reconstruction = super().forward(x)
        return codes, _Passes.apply(reconstruction, self.rows_backward)


class HungryTopK(_Hungry, TopK):
    pass


class HungryReLU(_Hungry, ReLU):
    pass


class SelectsOverTheBatch(_Hungry, ReLU):
    """Keeps the largest pre-activations of the whole batch, four a row on average."""

    rows_are_independent = False

    def encode(self, x):
        codes = super().encode(x)
        least = codes.values.flatten().topk(4 * x.shape[0]).values[-1]
        return codes._replace(values=codes.values * (codes.values >= least))
