"""Records the learning rates of PyTorch's own schedulers, for trainer/tests/schedules.rs.

    pip install torch==2.11.0
    python trainer/tests/generate/schedules.py > trainer/tests/data/schedules.json

Every case is run step by step; its learning rate is recorded before chosen steps.
"""

import json
import random

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, ReduceLROnPlateau


def optimizer(lr):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def current(opt):
    return opt.param_groups[0]["lr"]


def points(steps, turns):
    """Steps to record: the first ones, every hundredth or so, and all around the turning points."""
    chosen = set(range(min(steps, 20))) | set(range(0, steps, max(1, steps // 60))) | {steps - 1}
    for turn in turns:
        chosen |= set(range(turn - 3, turn + 4))
    return sorted(step for step in chosen if 0 <= step < steps)


def cosine(lr, eta_min, t_max, warmup, init_factor, steps):
    """Warmup by hand, as the published trainer does, then one scheduler step a batch."""
    opt = optimizer(lr)
    scheduler = CosineAnnealingLR(opt, T_max=t_max, eta_min=eta_min)
    keep = set(points(steps, [warmup] + [warmup + k * t_max for k in range(1, 5)]))
    recorded = []
    for step in range(steps):
        if step < warmup:
            opt.param_groups[0]["lr"] = lr * (init_factor + (1 - init_factor) * (step / warmup))
        elif step == warmup:
            opt.param_groups[0]["lr"] = lr
        if step in keep:
            recorded.append([step, current(opt)])
        opt.step()
        if step >= warmup:
            scheduler.step()
    return dict(
        type="cosine", lr=lr, eta_min=eta_min, t_max=t_max, warmup_steps=warmup,
        warmup_init_factor=init_factor, recorded=recorded,
    )


def warmup(lr, init_factor, steps):
    opt = optimizer(lr)
    scheduler = LinearLR(opt, start_factor=init_factor, end_factor=1.0, total_iters=steps)
    keep = set(points(steps + 10, [steps]))
    recorded = []
    for step in range(steps + 10):
        if step in keep:
            recorded.append([step, current(opt)])
        opt.step()
        scheduler.step()
    return dict(type="warmup", lr=lr, warmup_steps=steps, warmup_init_factor=init_factor, recorded=recorded)


def linear(lr, total, falling, final_factor):
    """Full until `falling` steps are left, then LinearLR."""
    opt = optimizer(lr)
    keep = set(points(total + 10, [total - falling, total]))
    scheduler, recorded = None, []
    for step in range(total + 10):
        if step == total - falling:
            scheduler = LinearLR(opt, start_factor=1.0, end_factor=final_factor, total_iters=falling)
        if step in keep:
            recorded.append([step, current(opt)])
        opt.step()
        if scheduler:
            scheduler.step()
    return dict(
        type="linear", lr=lr, total_steps=total, decay_fraction=falling / total, final_factor=final_factor,
        recorded=recorded,
    )


def plateau(lr, factor, patience, min_lr, validations, seed):
    """Losses that fall, stall, rise, and once are not a number; the learning rate after each."""
    generator = random.Random(seed)
    opt = optimizer(lr)
    scheduler = ReduceLROnPlateau(opt, mode="min", factor=factor, patience=patience, min_lr=min_lr)
    recorded, loss = [], 3.0
    for i in range(validations):
        phase = i % 40
        change = generator.choice([-0.05, -0.00005, 0.0]) if phase < 20 else generator.choice([-0.01, 0.0, 0.02])
        loss = round(loss + change, 5)
        seen = None if i == 33 else loss
        scheduler.step(float("nan") if seen is None else seen)
        recorded.append([seen, current(opt)])
    return dict(type="plateau", lr=lr, factor=factor, patience=patience, min_lr=min_lr, recorded=recorded)


print(json.dumps({
    "torch": torch.__version__.split("+")[0],
    "cases": [
        cosine(5e-5, 1e-6, 50_000, 20_000, 0.01, 71_000),
        cosine(3e-5, 1e-6, 1000, 2000, 0.01, 7_500),
        cosine(1e-3, 0.0, 333, 0, 0.01, 3_000),
        cosine(0.02, 1e-6, 7, 5, 0.0, 60),
        cosine(1e-3, 1e-5, 1, 0, 0.01, 12),
        warmup(5e-5, 0.01, 20_000),
        warmup(1e-3, 0.25, 3),
        linear(3e-3, 2000, 1200, 0.01),
        linear(1e-3, 5000, 5000, 0.0),
        plateau(5e-5, 0.1, 5, 0.0, 160, 1),
        plateau(1e-3, 0.5, 10, 1e-5, 160, 2),
        plateau(1.0, 0.9, 0, 0.0, 160, 3),
    ],
}, separators=(",", ":")))
