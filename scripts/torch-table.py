#!/usr/bin/env python3
"""PyTorch's side of the table that examples/gpu_table prints: the same shapes in bf16, eager and with CUDA graphs.

    torch-table.py [--device cuda] [--small] [--rows FILE]

--small: tiny shapes and few rounds, to see that it runs. --rows: adds what comes out to the file that gpu_table makes its
table of.
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

class Decoder:
    """A causal decoder of random weights: norms first, rotary positions, a cache of keys and values of fixed room."""

    def __init__(self, d, layers, heads, batch, context, device):
        self.d, self.heads, self.batch, self.device = d, heads, batch, device
        self.bytes = 0

        def weight(*shape):
            matrix = torch.randn(*shape, device=device, dtype=torch.bfloat16) * 0.02
            self.bytes += matrix.numel() * matrix.element_size()
            return matrix

        self.table = weight(256, d)
        self.head = weight(256, d)
        self.layers = [
            [weight(3 * d, d), weight(d, d), weight(4 * d, d), weight(d, 4 * d)] for _ in range(layers)
        ]
        room = (layers, 2, batch, heads, context, d // heads)
        self.cache = torch.zeros(room, device=device, dtype=torch.bfloat16)
        half = d // heads // 2
        angle = torch.outer(torch.arange(context), 10000.0 ** (-torch.arange(half) / half)).to(device)
        self.cos, self.sin = angle.cos().to(torch.bfloat16), angle.sin().to(torch.bfloat16)
        self.columns = torch.arange(context, device=device)

    def turn(self, x, at):
        a, b = x.chunk(2, -1)
        cos, sin = self.cos[at], self.sin[at]
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)

    def forward(self, tokens, at, seen=None):
        """Logits after `tokens`, (batch, n), at the positions `at`, (n); all on the device. `seen`: how many positions
        there are then, where the host knows; `None`: all of the cache is looked at, and masked."""
        n, norm = tokens.shape[1], (self.d,)
        x = self.table[tokens]
        mask = None if seen else self.columns[None, :] <= at[:, None]
        room = seen or len(self.columns)
        for i, (qkv, out, fc1, fc2) in enumerate(self.layers):
            h = F.linear(F.layer_norm(x, norm), qkv).view(self.batch, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            self.cache[i, 0].index_copy_(2, at, self.turn(h[1], at))
            self.cache[i, 1].index_copy_(2, at, h[2].contiguous())
            keys, values = self.cache[i, 0, :, :, :room], self.cache[i, 1, :, :, :room]
            # Several positions at once are the first ones.
            causal = mask is None and n > 1
            mixed = F.scaled_dot_product_attention(self.turn(h[0], at), keys, values, attn_mask=mask, is_causal=causal)
            x = x + F.linear(mixed.transpose(1, 2).reshape(self.batch, n, self.d), out)
            x = x + F.linear(F.gelu(F.linear(F.layer_norm(x, norm), fc1)), fc2)
        return F.linear(F.layer_norm(x[:, -1], norm), self.head)

    def step(self, token, at, seen=None):
        """Chooses the next byte by a draw, in place."""
        probabilities = self.forward(token, at, seen).float().softmax(-1)
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


def decode(model, start, n, rounds, graph):
    """Microseconds a byte, over the bytes of all sequences, of `n` that follow the first `start`."""
    token = torch.zeros(model.batch, 1, dtype=torch.long, device=model.device)
    at = torch.full((1,), start, dtype=torch.long, device=model.device)

    def run(i):
        model.step(token, at, start + i + 1)

    if graph:
        # A graph is the same for every position.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                model.step(token, at)
        torch.cuda.current_stream().wait_stream(stream)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            model.step(token, at)

        def run(_):
            captured.replay()

    def work():
        at.fill_(start)
        for i in range(n):
            run(i)

    return timed(model.device, rounds, work) * 1e6 / (n * model.batch)


def bandwidth(device, rounds, size):
    """Gigabytes a second that are read and written while memory is copied."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / timed(device, rounds, lambda: target.copy_(source)) / 1e9


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rows")
    options = parser.parse_args()
    device = options.device
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch-table.py: PyTorch finds no CUDA device")
    # As in examples/gpu_table/measure.rs.
    if options.small:
        # Tiny shapes take a hundred times as long on threads that others want too.
        torch.set_num_threads(1)
        shapes, context, few, many, n, rounds = [("d32 L2", 32, 2, 4)], 64, 4, 24, 4, 1
    else:
        shapes = [("d512 L8", 512, 8, 8), ("d1024 L12", 1024, 12, 16)]
        context, few, many, n, rounds = 1024, 16, 512, 128, 5
    copied = bandwidth(device, rounds, 1 << (20 if options.small else 30))
    lines = [f"bandwidth\t{copied}"]
    name = torch.cuda.get_device_name() if device == "cuda" else "the processor"
    print(f"PyTorch {torch.__version__} on {name}, bf16, random weights, medians of {rounds}; memory is copied at {copied:.0f} GB/s")
    print(f"after {few} bytes, after {many}, prefill of {many}; a graph looks at all {context} positions each time")
    print("  model      way         us a byte: few before      many before       8 sessions      64 sessions  prefill bytes/s")
    for name, d, layers, heads in shapes:
        for way in ["eager", "graph"] if device == "cuda" else ["eager"]:
            graph = way == "graph"
            model = Decoder(d, layers, heads, 1, context, device)
            cells = [decode(model, few, n, rounds, graph), decode(model, many, n, rounds, graph)]
            for batch in [8, 64]:
                cells.append(decode(Decoder(d, layers, heads, batch, context, device), few, n, rounds, graph))
            tokens = torch.randint(256, (1, many), device=device)
            at = torch.arange(many, device=device)
            # Nobody makes a graph for every length of a prompt.
            cells.append(many / timed(device, rounds, lambda: model.forward(tokens, at, many)))
            shown = "".join(f"{cell:17.1f}" for cell in cells[:4]) + f"{cells[4]:17.0f}"
            print(f"  {name:10} {way:10} {shown}")
            lines.append("\t".join(["row", name, f"PyTorch {way}", "bf16", str(model.bytes), *map(str, cells)]))
    if options.rows:
        with open(options.rows, "a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


main()
