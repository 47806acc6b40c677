"""Records steps of PyTorch's own optimizers and of its GradScaler, for trainer/tests/optimizers.rs.

    pip install torch==2.11.0 numpy
    python trainer/tests/generate/optimizers.py > trainer/tests/data/optimizers.json

The gradients are a fixed function of parameter and step, so that the test can make them again:
g[i] = sin(0.7·i + 1.3·step) · 0.5 + 0.1 · p[i]. Muon is the public algorithm in its plainest form.
"""

import json
import math

import torch


def parameters():
    torch.manual_seed(11)
    return [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(12, 4)), torch.nn.Parameter(torch.randn(5))]


def set_gradients(params, step):
    for k, p in enumerate(params):
        i = torch.arange(p.numel(), dtype=torch.float64).reshape(p.shape)
        p.grad = (torch.sin(0.7 * i + 1.3 * step + k) * 0.5 + 0.1 * p.detach().double()).float()


def flat(tensors):
    return [x for t in tensors for x in t.detach().double().flatten().tolist()]


def run(make, steps=40):
    params = parameters()
    first = flat(params)
    optimizer = make(params)
    recorded = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 + math.cos(step / 7))
        set_gradients(params, step)
        optimizer.step()
        if step in (0, 1, 2, 9, steps - 1):
            recorded.append({"step": step, "params": flat(params)})
    return {"first": first, "recorded": recorded}


def orthogonal(g):
    x = g / (g.norm() + 1e-7)
    tall = x.size(0) > x.size(1)
    x = x.T if tall else x
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x


def muon(steps=40):
    """The first two parameters; the second one, (12, 4), is a packed projection of three matrices."""
    params = parameters()
    first = flat(params[:2])
    buffers = [torch.zeros_like(p) for p in params[:2]]
    recorded = []
    for step in range(steps):
        lr, momentum = 0.01 * (1 + math.cos(step / 7)), 0.85 + 0.1 * min(1, step / 20)
        set_gradients(params, step)
        with torch.no_grad():
            for k, (p, b) in enumerate(zip(params[:2], buffers)):
                b.lerp_(p.grad, 1 - momentum)
                u = p.grad.lerp(b, momentum)
                u = torch.cat([orthogonal(z) for z in u.chunk(3)]) if k == 1 else orthogonal(u)
                p.mul_(1 - lr * 0.1)
                p.add_(u, alpha=-lr * max(1, p.size(0) / p.size(1)) ** 0.5)
        if step in (0, 1, 2, 9, steps - 1):
            recorded.append({"step": step, "params": flat(params[:2])})
    return {"first": first, "recorded": recorded}


def scaler():
    """The scale after each of some steps, of which those in `bad` overflow."""
    bad = [3, 4, 2010, 4100]
    grad_scaler = torch.amp.GradScaler("cpu")
    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([p], lr=0.0)
    scales = []
    for step in range(6200):
        loss = (p * (float("inf") if step in bad else 1.0)).sum()
        optimizer.zero_grad()
        grad_scaler.scale(loss).backward()
        grad_scaler.unscale_(optimizer)
        grad_scaler.step(optimizer)
        grad_scaler.update()
        scale = grad_scaler.get_scale()
        if not scales or scales[-1][1] != scale:
            scales.append([step, scale])
    return {"bad": bad, "steps": 6200, "changes": scales}


json.dump(
    {
        "adamw": run(lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.01)),
        "adam": run(lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.01)),
        "muon": muon(),
        "scaler": scaler(),
    },
    __import__("sys").stdout,
)
print()
