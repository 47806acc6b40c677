#!/usr/bin/env python3
"""Runs the same weights in this library, in llama.cpp and in PyTorch, and prints ratios of medians.

    cargo build --release
    python benches/peers.py --size M --threads 2

Needs numpy and safetensors from PyPI; llama-cpp-python (or its `llama_cpp` package on PYTHONPATH with
LLAMA_CPP_LIB_PATH naming a folder with libllama) for llama.cpp; torch for PyTorch, and with it onnx and onnxruntime
for ONNX Runtime. What is missing is left out.
llama.cpp gets the weights from `grug export --gguf`.
The yardsticks S, M and L are GPT-2 shaped with random weights, so that the same numbers fit a peer's format; `single`
and `parallel` are the published defaults, bidirectional, where every byte is a pass over the whole window: there the
peer is PyTorch alone. Rounds are interleaved: what else the machine does falls on everybody alike.
"""
import argparse, ctypes, json, os, statistics, subprocess, sys, tempfile, time

import numpy as np
from safetensors.numpy import load_file

SHAPES = {"S": (256, 4, 512), "M": (512, 8, 1024), "L": (1024, 12, 1024)}
CONTEXTS = (0, 384)


class Llama:
    def __init__(self, path, threads, context):
        import llama_cpp as lib

        self.lib = lib
        lib.llama_backend_init()
        self.quiet = lib.llama_log_callback(lambda level, text, user: None)
        lib.llama_log_set(self.quiet, ctypes.c_void_p(0))
        params = lib.llama_model_default_params()
        self.model = lib.llama_model_load_from_file(path.encode(), params)
        assert self.model, f"llama.cpp does not load {path}"
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, 512, 512
        params.n_threads = params.n_threads_batch = threads
        self.context = lib.llama_init_from_model(self.model, params)
        assert self.context

    def feed(self, tokens):
        array = (self.lib.llama_token * len(tokens))(*tokens)
        result = self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(array, len(tokens)))
        assert result == 0, result
        return self.lib.llama_get_logits(self.context)

    def clear(self):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def decode(self, context, n):
        self.clear()
        self.feed(prompt(context + 1))
        begin = time.perf_counter()
        for i in range(n):
            self.feed([i % 256])
        return n / (time.perf_counter() - begin)

    def prefill(self, n):
        self.clear()
        begin = time.perf_counter()
        self.feed(prompt(n))
        return n / (time.perf_counter() - begin)


def prompt(n):
    return [b"the quick brown fox "[i % 20] for i in range(n)]


class Torch:
    """Eager PyTorch with a cache of keys and values of its own."""

    def __init__(self, tensors, size, threads):
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        self.d, self.layers, self.window = SHAPES[size]
        self.t = {k: torch.from_numpy(v) for k, v in tensors.items()}
        self.clear()

    def clear(self):
        shape = (self.layers, 2, self.d // 64, self.window, 64)
        self.cache, self.len = self.torch.zeros(shape), 0

    def whole(self, tokens, store=None):
        """The logits after `tokens`; `store` keeps a layer's keys and values and gives all there are."""
        torch, t, d = self.torch, self.t, self.d
        f = torch.nn.functional
        n, first = len(tokens), self.len if store else 0
        x = t["embedding.weight"][tokens] + t["positional_encoder.pos_embedding.weight"][first : first + n]
        for i in range(self.layers):
            p = f"transformer_encoder_layers.{i}."
            h = f.layer_norm(x, (d,), t[p + "norm1.weight"], t[p + "norm1.bias"])
            qkv = f.linear(h, t[p + "self_attn.in_proj_weight"], t[p + "self_attn.in_proj_bias"])
            q, k, v = qkv.view(n, 3, d // 64, 64).permute(1, 2, 0, 3)
            if store:
                k, v = store(i, k, v)
            h = f.scaled_dot_product_attention(q, k, v, is_causal=n > 1 and first == 0)
            h = h.transpose(0, 1).reshape(n, d)
            x = x + f.linear(h, t[p + "self_attn.out_proj.weight"], t[p + "self_attn.out_proj.bias"])
            h = f.layer_norm(x, (d,), t[p + "norm2.weight"], t[p + "norm2.bias"])
            h = f.gelu(f.linear(h, t[p + "linear1.weight"], t[p + "linear1.bias"]))
            x = x + f.linear(h, t[p + "linear2.weight"], t[p + "linear2.bias"])
        x = f.layer_norm(x[-1:], (d,), t["final_norm.weight"], t["final_norm.bias"])
        return f.linear(x, t["fc_out.weight"], t["fc_out.bias"])

    def feed(self, tokens):
        end = self.len + len(tokens)

        def store(layer, k, v):
            self.cache[layer, 0, :, self.len : end] = k
            self.cache[layer, 1, :, self.len : end] = v
            return self.cache[layer, :, :, :end]

        with self.torch.inference_mode():
            logits = self.whole(tokens, store)
        self.len = end
        return logits

    decode, prefill = Llama.decode, Llama.prefill


class Onnx:
    """ONNX Runtime on the graph that PyTorch exports: a prompt of fixed length at once."""

    def __init__(self, peer, n, folder):
        import onnx, onnxruntime

        torch = peer.torch

        class Prompt(torch.nn.Module):
            def forward(self, tokens):
                return peer.whole(tokens)

        path = os.path.join(folder, "prompt.onnx")
        with torch.inference_mode():
            torch.onnx.export(Prompt(), (torch.tensor(prompt(n)),), path, dynamo=False, input_names=["tokens"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.n = n

    def logits(self):
        return self.session.run(None, {"tokens": np.array(prompt(self.n))})[0]

    def round(self):
        begin = time.perf_counter()
        self.logits()
        return {"prefill": self.n / (time.perf_counter() - begin)}


class TorchWindow:
    """Eager PyTorch's own encoder layers on a window of 256 bytes: the published code's way to generate."""

    def __init__(self, tensors, threads):
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        self.t = {k: torch.from_numpy(v) for k, v in tensors.items()}
        self.parallel = "aggregator_cnn.weight" in tensors
        names = ("byte_stream_encoder", "agg_stream_encoder") if self.parallel else ("transformer_encoder_layers",)
        self.stacks = [self.stack(name) for name in names]
        angles = torch.arange(256)[:, None] * torch.exp(torch.arange(0, 1024, 2) * (-np.log(10000.0) / 1024))
        self.positions = torch.stack([angles.sin(), angles.cos()], -1).reshape(256, 1024).float()

    def stack(self, name):
        torch, layers = self.torch, []
        for n in range(4):
            layer = torch.nn.TransformerEncoderLayer(1024, 16, 4096, activation="gelu", batch_first=True)
            prefix = f"{name}.{n}."
            layer.load_state_dict({k[len(prefix) :]: v for k, v in self.t.items() if k.startswith(prefix)})
            layers.append(layer.eval())
        return layers

    def logits(self, window):
        f, t = self.torch.nn.functional, self.t
        with self.torch.inference_mode():
            arriving = t["embedding.weight"][self.torch.tensor(window)]
            name = "byte_stream_projection" if self.parallel else "input_projection"
            streams = [f.linear(arriving, t[name + ".weight"], t[name + ".bias"])]
            if self.parallel:
                weight, bias = t["aggregator_cnn.weight"], t["aggregator_cnn.bias"]
                streams.append(f.conv1d(arriving.T[None], weight, bias, stride=4)[0].T)
            last = []
            for x, layers in zip(streams, self.stacks):
                x = (x + self.positions[: len(x)])[None]
                for layer in layers:
                    x = layer(x)
                last.append(x[0, -1])
            x = self.torch.cat(last)
            x = f.layer_norm(x, x.shape, t["final_norm.weight"], t["final_norm.bias"])
            return f.linear(x, t["fc_out.weight"], t["fc_out.bias"])

    def decode(self, n):
        window = prompt(256)
        begin = time.perf_counter()
        for _ in range(n):
            window = window[1:] + [int(self.logits(window).argmax())]
        return n / (time.perf_counter() - begin)


class Grug:
    """Our command, once a round: medians of a few of its own, for a process that has just begun is slower than the peers, which stay."""

    def __init__(self, command, path, threads):
        self.arguments = [command, "bench", path, "--threads", str(threads), "--rounds", "3", "--json"]

    def round(self):
        medians = json.loads(subprocess.run(self.arguments, check=True, capture_output=True).stdout)["medians"]
        names = {"decode": "decode 0", "decode_long": "decode 384", "prefill": "prefill"}
        return {names[k]: rate for k, rate in medians.items() if k in names}


def peer_round(peer, context):
    if isinstance(peer, TorchWindow):
        return {"decode 0": peer.decode(4)}
    quick = peer.decode(0, 2)
    n = max(2, min(int(quick * 0.3), context // 8))
    rates = {f"decode {c}": peer.decode(min(c, context * 3 // 4), n) for c in CONTEXTS}
    rates["prefill"] = peer.prefill(min(512, context))
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*SHAPES, "single", "parallel"], default="S")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--grug", default="target/release/grug")
    parser.add_argument("--kinds", default="f32,f16,int8,int4", help="which of our weights, with llama.cpp's like")
    options = parser.parse_args()
    causal = options.size in SHAPES
    context = SHAPES[options.size][2] if causal else 256
    # Deleted with the object, at the end.
    temporary = tempfile.TemporaryDirectory()
    folder = temporary.name
    base = os.path.join(folder, "f32.safetensors")
    subprocess.run([options.grug, "bench", options.size, "--keep", base, "--rounds", "1"], check=True, capture_output=True)
    tensors = load_file(base)
    pairs = [("F32", "f32"), ("F16", "f16"), ("Q8_0", "int8"), ("Q4_0", "int4")]
    pairs = [pair for pair in pairs if pair[1] in options.kinds.split(",")]
    runners = {}
    for theirs, ours in pairs:
        path = base
        if ours != "f32":
            path = os.path.join(folder, ours + ".safetensors")
            subprocess.run([options.grug, "quantize", base, "-o", path, "--to", ours], check=True, capture_output=True)
        runners["grug " + ours] = Grug(options.grug, path, options.threads)
        if not causal:
            continue
        try:
            gguf_path = os.path.join(folder, theirs + ".gguf")
            command = [options.grug, "export", base, "--gguf", "-o", gguf_path, "--to", theirs.lower()]
            subprocess.run(command, check=True, capture_output=True)
            runners["llama.cpp " + theirs] = Llama(gguf_path, options.threads, context)
        except ImportError as error:
            print(f"llama.cpp is left out: {error}", file=sys.stderr)
    try:
        runners["torch f32"] = Torch(tensors, options.size, options.threads) if causal else TorchWindow(tensors, options.threads)
    except ImportError as error:
        print(f"PyTorch is left out: {error}", file=sys.stderr)
    if causal and "torch f32" in runners:
        try:
            runners["onnx f32"] = Onnx(runners["torch f32"], 512, folder)
        except ImportError as error:
            print(f"ONNX Runtime is left out: {error}", file=sys.stderr)
    # The same weights must mean the same thing.
    if "llama.cpp F32" in runners and "torch f32" in runners:
        a, b = runners["llama.cpp F32"], runners["torch f32"]
        a.clear(), b.clear()
        theirs, other = np.ctypeslib.as_array(a.feed(prompt(9)), (256,)), b.feed(prompt(9)).numpy()[0]
        print("llama.cpp and PyTorch differ by", np.abs(theirs - other).max(), file=sys.stderr)
    if "onnx f32" in runners:
        peer = runners["torch f32"]
        peer.clear()
        theirs, other = runners["onnx f32"].logits(), peer.feed(prompt(512)).numpy()
        print("ONNX Runtime and PyTorch differ by", np.abs(theirs - other).max(), file=sys.stderr)
    results = {name: {} for name in runners}
    for _ in range(options.rounds):
        for name, runner in runners.items():
            rates = runner.round() if isinstance(runner, (Grug, Onnx)) else peer_round(runner, context)
            for what, rate in rates.items():
                results[name].setdefault(what, []).append(rate)
    medians = {name: {w: statistics.median(r) for w, r in rates.items()} for name, rates in results.items()}
    print(f"{options.size}, {options.threads} threads, bytes a second, medians of {options.rounds} interleaved rounds")
    for name, rates in medians.items():
        print(f"  {name:16}" + "".join(f"{w}: {r:9.1f}   " for w, r in rates.items()))
    for theirs, ours in pairs:
        if "llama.cpp " + theirs in medians:
            ratio = {w: medians["grug " + ours][w] / r for w, r in medians["llama.cpp " + theirs].items()}
            print(f"  {ours} against {theirs}: " + ", ".join(f"{w} {r:.2f}×" for w, r in ratio.items()))
        elif "torch f32" in medians:
            ratio = {w: medians["grug " + ours][w] / r for w, r in medians["torch f32"].items()}
            print(f"  {ours} against PyTorch: " + ", ".join(f"{w} {r:.2f}×" for w, r in ratio.items()))
        if "onnx f32" in medians:
            print(f"  {ours} against ONNX Runtime's f32: prefill {medians['grug ' + ours]['prefill'] / medians['onnx f32']['prefill']:.2f}×")


main()
