"""Reads a GGUF file with the gguf package and computes what it says, as GPT-2: logits after some bytes, as JSON."""
import json, math, sys

import gguf
import numpy as np

path, text = sys.argv[1], bytes.fromhex(sys.argv[2])
reader = gguf.GGUFReader(path)


def field(name):
    return reader.fields[name].contents()


t = {}
for tensor in reader.tensors:
    numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    t[tensor.name] = numbers.reshape([int(n) for n in reversed(tensor.shape)]).astype(np.float64)

width, heads = field("gpt2.embedding_length"), field("gpt2.attention.head_count")
kv_heads, layers = field("gpt2.attention.head_count_kv"), field("gpt2.block_count")
assert field("general.architecture") == "gpt2" and field("gpt2.context_length") == len(t["position_embd.weight"])
tokens = field("tokenizer.ggml.tokens")
assert len(set(tokens)) == 256 and tokens[ord("a")] == "a" and tokens[ord(" ")] == "Ġ" and tokens[10] == "Ċ"
erf = np.vectorize(math.erf)


def norm(x, name):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + field("gpt2.attention.layer_norm_epsilon"))
    return x * t[name + ".weight"] + t[name + ".bias"]


def linear(x, name):
    return x @ t[name + ".weight"].T + t[name + ".bias"]


n = len(text)
x = t["token_embd.weight"][list(text)] + t["position_embd.weight"][:n]
future = np.triu(np.full((n, n), -np.inf), 1)
dim = width // heads
for i in range(layers):
    qkv = linear(norm(x, f"blk.{i}.attn_norm"), f"blk.{i}.attn_qkv")
    q = qkv[:, :width].reshape(n, heads, dim)
    k = qkv[:, width : width + kv_heads * dim].reshape(n, kv_heads, dim)
    v = qkv[:, width + kv_heads * dim :].reshape(n, kv_heads, dim)
    mixed = np.empty((n, heads, dim))
    for h in range(heads):
        shared = h // (heads // kv_heads)
        scores = np.exp(q[:, h] @ k[:, shared].T / math.sqrt(dim) + future)
        mixed[:, h] = scores / scores.sum(-1, keepdims=True) @ v[:, shared]
    x = x + linear(mixed.reshape(n, width), f"blk.{i}.attn_output")
    hidden = linear(norm(x, f"blk.{i}.ffn_norm"), f"blk.{i}.ffn_up")
    assert hidden.shape[1] == field("gpt2.feed_forward_length")
    x = x + linear(hidden * 0.5 * (1 + erf(hidden / math.sqrt(2))), f"blk.{i}.ffn_down")
logits = norm(x[-1], "output_norm") @ t["output.weight"].T
kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
print(json.dumps({"logits": logits.tolist(), "kinds": kinds, "eos": int(field("tokenizer.ggml.eos_token_id"))}))
