#!/usr/bin/env python3
"""Steps a second of grug-trainer beside PyTorch: the same model, batch, numbers and optimizer, in turns in one run.

  trainer/benches/compare.py --trainer target/release/grug-trainer                        on the CPU, one thread
  trainer/benches/compare.py --trainer ./grug-trainer --device cuda --preset h200         on a GPU; no Rust needed there

Needs the PyTorch that the trainer was built for (pip install torch==2.11.0). Each contender runs in a process of its
own that does nothing but its turn; the order of turns changes from round to round. Printed are medians over rounds, their
ratios to PyTorch eager, and the most memory each has held (of the device; on a CPU, of the process).

The model is the modern recipe: causal, rotary positions, normalized queries and keys, RMSNorm, squared ReLU.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PRESETS = {
    # layers, width, heads, context, windows a step
    "small": (4, 128, 4, 256, 8),
    "medium": (6, 384, 6, 256, 8),
    "h200": (12, 768, 12, 1024, 64),
}
PRECISIONS = ("f32", "bf16")


def configuration(o, corpus):
    return f"""
name = "compare"
[data]
prepared = {json.dumps(str(corpus))}
validation_fraction = 0.0
[training]
steps = 1
batch_size = {o.batch}
precision = "{o.precision}"
tf32 = {str(o.tf32).lower()}
threads = {o.threads}
[optimizer]
type = "{o.optimizer}"
learning_rate = 1e-3
beta1 = 0.9
beta2 = 0.95
weight_decay = 0.01
[model]
context_bytes = {o.context}
embedding_dim = {o.width}
d_model = {o.width}
n_heads = {o.heads}
n_layers = {o.layers}
ffn_activation = "relu2"
norm_first = true
positions = "rotary"
norm = "rms"
bias = false
qk_norm = true
embedding_norm = true
"""


# ---- the PyTorch side -----------------------------------------------------------------------------------------------


def build(o, torch):
    from torch import nn
    from torch.nn import functional as F

    half = o.width // o.heads // 2
    angles = torch.outer(torch.arange(o.context), 10000.0 ** (-torch.arange(half) / half))

    def rotate(x, cos, sin):
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1).to(x.dtype)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.RMSNorm(o.width, eps=1e-5), nn.RMSNorm(o.width, eps=1e-5)
            self.qkv = nn.Linear(o.width, 3 * o.width, bias=False)
            self.out = nn.Linear(o.width, o.width, bias=False)
            self.up = nn.Linear(o.width, 4 * o.width, bias=False)
            self.down = nn.Linear(4 * o.width, o.width, bias=False)

        def forward(self, x, cos, sin):
            q, k, v = self.qkv(self.norm1(x)).view(*x.shape[:2], 3 * o.heads, -1).transpose(1, 2).chunk(3, 1)
            q, k = (rotate(F.rms_norm(t, t.shape[-1:], eps=1e-5).to(v.dtype), cos, sin) for t in (q, k))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(x.shape))
            return x + self.down(F.relu(self.up(self.norm2(x))).square())

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(256, o.width)
            self.embedding_norm, self.norm = nn.RMSNorm(o.width, eps=1e-5), nn.RMSNorm(o.width, eps=1e-5)
            self.blocks = nn.ModuleList(Block() for _ in range(o.layers))
            self.head = nn.Linear(o.width, 256, bias=False)
            self.register_buffer("cos", angles.cos(), persistent=False)
            self.register_buffer("sin", angles.sin(), persistent=False)

        def forward(self, bytes, targets):
            x = self.embedding_norm(self.embedding(bytes))
            for block in self.blocks:
                x = block(x, self.cos, self.sin)
            logits = self.head(self.norm(x)).float()
            return F.cross_entropy(logits.view(-1, 256), targets.reshape(-1))

    torch.manual_seed(1)
    return Model().to(o.device)


def optimizers(o, torch, model):
    settings = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01, fused=True)
    if o.optimizer == "adamw":
        return [torch.optim.AdamW(model.parameters(), **settings)]
    matrices = [p for p in model.blocks.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if all(p is not q for q in matrices)]
    return [torch.optim.AdamW(others, **settings), torch.optim.Muon(matrices, lr=0.02, weight_decay=0.01)]


def worker(o):
    """One contender: a line on the standard input starts a round, a line of JSON answers."""
    import torch

    if o.threads:
        torch.set_num_threads(o.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = o.tf32
    corpus = torch.frombuffer(bytearray(Path(o.corpus).read_bytes()), dtype=torch.uint8).to(o.device)
    columns = torch.arange(o.context + 1, device=o.device)
    model = build(o, torch)
    steppers = optimizers(o, torch, model)
    parameters = list(model.parameters())
    forward = torch.compile(model) if o.worker == "compile" else model
    cuda = o.device.startswith("cuda")
    dtype = torch.bfloat16 if o.precision == "bf16" else None

    def step():
        starts = torch.randint(len(corpus) - o.context - 1, (o.batch,))
        starts = starts.pin_memory().to(o.device, non_blocking=True) if cuda else starts
        windows = corpus[starts[:, None] + columns].long()
        with torch.autocast(o.device.split(":")[0], dtype=dtype, enabled=dtype is not None):
            loss = forward(windows[:, :-1], windows[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        model.zero_grad(set_to_none=True)
        return loss.detach()

    for _ in sys.stdin:
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        total = sum(step() for _ in range(o.steps))
        loss = (total / o.steps).item()
        seconds = time.perf_counter() - start
        if cuda:
            peak = torch.cuda.max_memory_allocated()
        else:
            peak = int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
        print(json.dumps({"steps": o.steps, "seconds": seconds, "loss": loss, "peak_memory_bytes": peak}), flush=True)


# ---- turns ----------------------------------------------------------------------------------------------------------


class Contender:
    def __init__(self, name, command, env):
        self.name, self.rounds = name, []
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def turn(self):
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.stderr.read().strip()[-2000:] or "ended without a word")
        self.rounds.append(json.loads(line))

    def end(self):
        self.process.kill()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", default="target/release/grug-trainer", help="the program to measure")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; 0 = all cores")
    parser.add_argument("--preset", choices=PRESETS, default="small")
    for name in ("layers", "width", "heads", "context", "batch"):
        parser.add_argument(f"--{name}", type=int, help="instead of the preset's")
    parser.add_argument("--precision", choices=PRECISIONS, default="f32")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--rounds", type=int, default=8, help="rounds that count; two more warm up")
    parser.add_argument("--steps", type=int, default=5, help="steps of a round")
    parser.add_argument("--compile", action="store_true", help="torch.compile too, where it works")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--worker", choices=("eager", "compile"), help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    o = parser.parse_args()
    for name, value in zip(("layers", "width", "heads", "context", "batch"), PRESETS[o.preset]):
        if getattr(o, name) is None:
            setattr(o, name, value)
    if o.worker:
        return worker(o)

    import torch

    env = dict(os.environ, TORCHINDUCTOR_COMPILE_THREADS="1")
    if o.threads:
        env["OMP_NUM_THREADS"] = str(o.threads)
    library = str(Path(torch.__file__).parent / "lib")
    ours = dict(env)
    if o.device != "cpu" or subprocess.run([o.trainer, "--version"], capture_output=True).returncode != 0:
        # A binary that was carried here finds its libtorch in the installed PyTorch.
        if not torch.__version__.startswith("2.11."):
            sys.exit(f"the trainer is made for PyTorch 2.11, and {torch.__version__} is installed")
        ours["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [library, env.get("LD_LIBRARY_PATH")]))
    with tempfile.TemporaryDirectory() as folder:
        corpus, config = Path(folder) / "corpus.bin", Path(folder) / "compare.toml"
        random.seed(1)
        words = [bytes(random.choices(range(97, 123), k=random.randint(2, 9))) for _ in range(500)]
        corpus.write_bytes(b" ".join(random.choices(words, k=200_000)))
        config.write_text(configuration(o, corpus))
        rounds = o.rounds + 2
        bench = [o.trainer, "bench", config, "--paced", "--rounds", rounds, "--steps", o.steps, "--device", o.device]
        this = [sys.executable, __file__, *sys.argv[1:], "--corpus", corpus, "--worker"]
        contenders = [
            Contender("grug-trainer", list(map(str, bench)), ours),
            Contender("PyTorch eager", list(map(str, this + ["eager"])), env),
        ]
        if o.compile:
            contenders.append(Contender("torch.compile", list(map(str, this + ["compile"])), env))
        try:
            for number in range(rounds):
                for contender in contenders[number % len(contenders) :] + contenders[: number % len(contenders)]:
                    try:
                        contender.turn()
                    except RuntimeError as error:
                        if contender.name != "torch.compile":
                            sys.exit(f"{contender.name}: {error}")
                        print(f"torch.compile does not work here: {error}", file=sys.stderr)
                        contenders.remove(contender)
        finally:
            for contender in contenders:
                contender.end()
    report(o, contenders, torch)


def report(o, contenders, torch):
    counted = {c.name: c.rounds[2:] for c in contenders}
    medians = {name: statistics.median(r["seconds"] / r["steps"] for r in rounds) for name, rounds in counted.items()}
    eager = medians["PyTorch eager"]
    bytes_a_step = o.batch * o.context
    result = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(o.device) if o.device != "cpu" else f"cpu, {o.threads} threads",
        "model": {name: getattr(o, name) for name in ("layers", "width", "heads", "context", "batch")},
        "precision": o.precision,
        "optimizer": o.optimizer,
        "contenders": {
            name: {
                "median_step_seconds": medians[name],
                "bytes_per_second": bytes_a_step / medians[name],
                "speed_against_eager": eager / medians[name],
                # Turn against turn of the same round: what else ran on the machine hit both.
                "speed_against_eager_by_round": statistics.median(
                    e["seconds"] / r["seconds"] for e, r in zip(counted["PyTorch eager"], rounds)
                ),
                "peak_memory_bytes": max(r["peak_memory_bytes"] or 0 for r in rounds),
                "last_loss": rounds[-1]["loss"],
            }
            for name, rounds in counted.items()
        },
    }
    if o.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{result['device']}; torch {torch.__version__}; {o.precision}, {o.optimizer}; {result['model']}")
    print(f"{'':16}{'ms a step':>12}{'bytes/s':>12}{'to eager':>10}{'by round':>10}{'peak MiB':>10}{'loss':>8}")
    for name, c in result["contenders"].items():
        assert math.isfinite(c["last_loss"])
        print(
            f"{name:16}{c['median_step_seconds'] * 1e3:12.2f}{c['bytes_per_second']:12.0f}"
            f"{c['speed_against_eager']:10.2f}{c['speed_against_eager_by_round']:10.2f}"
            f"{c['peak_memory_bytes'] / 2**20:10.0f}{c['last_loss']:8.3f}"
        )


if __name__ == "__main__":
    main()
