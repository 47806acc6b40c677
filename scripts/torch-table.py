#!/usr/bin/env python3
"""PyTorch's side of the table that examples/gpu_table.rs prints: the same shapes in bf16, eager and with CUDA graphs.

    torch-table.py [--device cuda] [--small]     --small: tiny shapes and few rounds, to see that it runs
"""
import argparse
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("torch-table.py: needs PyTorch")

CONTEXT = 1024


class Decoder:
    """A causal decoder of random weights: norms first, rotary positions, a cache of keys and values of fixed room."""

    def __init__(self, d, layers, heads, batch, device):
        self.d, self.heads, self.batch, self.device = d, heads, batch, device

        def weight(*shape):
            return torch.randn(*shape, device=device, dtype=torch.bfloat16) * 0.02

        self.table = weight(256, d)
        self.head = weight(256, d)
        self.layers = [
            [weight(3 * d, d), weight(d, d), weight(4 * d, d), weight(d, 4 * d)] for _ in range(layers)
        ]
        room = (layers, 2, batch, heads, CONTEXT, d // heads)
        self.cache = torch.zeros(room, device=device, dtype=torch.bfloat16)
        half = d // heads // 2
        angle = torch.outer(torch.arange(CONTEXT), 10000.0 ** (-torch.arange(half) / half)).to(device)
        self.cos, self.sin = angle.cos().to(torch.bfloat16), angle.sin().to(torch.bfloat16)
        self.columns = torch.arange(CONTEXT, device=device)

    def turn(self, x, at):
        a, b = x.chunk(2, -1)
        cos, sin = self.cos[at], self.sin[at]
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)

    def forward(self, tokens, at):
        """Logits after `tokens`, (batch, n), at the positions `at`, (n); all on the device."""
        n, norm = tokens.shape[1], (self.d,)
        x = self.table[tokens]
        mask = self.columns[None, :] <= at[:, None]
        for i, (qkv, out, fc1, fc2) in enumerate(self.layers):
            h = F.linear(F.layer_norm(x, norm), qkv).view(self.batch, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            self.cache[i, 0].index_copy_(2, at, self.turn(h[1], at))
            self.cache[i, 1].index_copy_(2, at, h[2].contiguous())
            mixed = F.scaled_dot_product_attention(self.turn(h[0], at), self.cache[i, 0], self.cache[i, 1], attn_mask=mask)
            x = x + F.linear(mixed.transpose(1, 2).reshape(self.batch, n, self.d), out)
            x = x + F.linear(F.gelu(F.linear(F.layer_norm(x, norm), fc1)), fc2)
        return F.linear(F.layer_norm(x[:, -1], norm), self.head)

    def step(self, token, at):
        """Chooses the next byte by a draw, in place."""
        probabilities = self.forward(token, at).float().softmax(-1)
        # The most likely after each was divided by an exponential draw: a draw without asking the host.
        noise = torch.empty_like(probabilities).exponential_(1)
        token.copy_((probabilities / noise).argmax(-1, keepdim=True))
        at.add_(1)


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def timed(device, rounds, work):
    times = []
    for _ in range(rounds + 1):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def decode(model, n, rounds, graph):
    """Microseconds a byte, over the bytes of all sequences."""
    token = torch.zeros(model.batch, 1, dtype=torch.long, device=model.device)
    at = torch.full((1,), 16, dtype=torch.long, device=model.device)
    run = lambda: model.step(token, at)  # noqa: E731
    if graph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            run()
        run = captured.replay

    def work():
        at.fill_(16)
        for _ in range(n):
            run()

    return timed(model.device, rounds, work) * 1e6 / (n * model.batch)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch-table.py: PyTorch finds no CUDA device")
    shapes = [("tiny", 32, 2, 4)] if options.small else [("d512 L8", 512, 8, 8), ("d1024 L12", 1024, 12, 16)]
    n, rounds = (4, 1) if options.small else (128, 5)
    print(f"PyTorch {torch.__version__}, {options.device}, bf16, random weights, medians of {rounds}; prefill of 512 bytes")
    print("  model      way          us a byte: at 16  8 sessions  64 sessions   prefill bytes/s")
    for name, d, layers, heads in shapes:
        for way in ["eager", "CUDA graph"] if options.device == "cuda" else ["eager"]:
            cells = []
            for batch in [1, 8, 64]:
                cells.append(decode(Decoder(d, layers, heads, batch, options.device), n, rounds, way != "eager"))
            model = Decoder(d, layers, heads, 1, options.device)
            tokens = torch.randint(256, (1, 512), device=options.device)
            at = torch.arange(512, device=options.device)
            prefill = 512 / timed(options.device, rounds, lambda: model.forward(tokens, at))
            print(f"  {name:9}  {way:11}  {cells[0]:16.1f}  {cells[1]:10.1f}  {cells[2]:11.1f}  {prefill:16.0f}")


main()
