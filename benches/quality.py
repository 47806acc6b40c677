#!/usr/bin/env python3
"""Measures how well models predict, beside what others reach: docs/quality.md has the results.

    cargo build --release && scripts/fetch-libtorch && cargo build --release -p grug-trainer
    python3 benches/quality.py shakespeare              the default recipe beside nanoGPT's, at the same training bytes
    python3 benches/quality.py shakespeare --seconds N  the same, with as many steps as fit into N seconds here
    python3 benches/quality.py ablations --steps 450    each option of the recipe the other way, with less training
    python3 benches/quality.py novels FOLDER            streams and objectives, beside xz, zstd and brotli
    python3 benches/quality.py drafts MODEL PROMPT_FILE bytes a forward pass, were the text's own n-grams its draft

Runs lie in runs/quality; one that is finished is not trained again, one that was interrupted goes on. What is random is
seeded: on one machine the same command gives the same losses.
"""
import argparse, json, lzma, os, re, resource, shutil, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHAKESPEARE = ROOT / "data/shakespeare.txt"
STEPS, BATCH, CONTEXT = 3000, 2, 256  # of the preset: as many bytes as nanoGPT's 2000 steps of 12 windows of 64
BUDGET = STEPS * BATCH * CONTEXT
assert BUDGET == 2000 * 12 * 64

# What others reach. The first: karpathy/nanoGPT, train.py with config/train_shakespeare_char.py and the settings that its
# README names for a laptop (--n_layer=4 --n_head=4 --n_embd=128 --block_size=64 --batch_size=12 --max_iters=2000
# --dropout=0.0), run on two cores of the machine on which ours was developed; then its model over all windows of 64 bytes
# of val.bin. Its README states 1.88, its own estimate over 20 batches.
NANOGPT = {"params": 0.80e6, "nats": 1.8982, "seconds": 142}


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Bench:
    def __init__(self, args):
        self.bin, self.runs, self.threads = Path(args.bin), Path(args.runs), args.threads
        for program in args.needs:
            if not (self.bin / program).exists():
                sys.exit(f"{self.bin / program} is missing: see the top of {Path(__file__).name} for how to build it")

    def command(self, program, *arguments):
        done = subprocess.run([self.bin / program, *map(str, arguments)], capture_output=True)
        if done.returncode:
            sys.exit(f"{program} {' '.join(map(str, arguments))}\n{done.stderr.decode(errors='replace')}")
        return done.stdout

    def train(self, name, data, settings, preset="shakespeare"):
        """Trains, and says where the model is, its parameters, and what it cost."""
        run = self.runs / name
        settings = {"data.sources": [str(Path(d).resolve()) for d in data], "training.threads": self.threads,
                    "training.validate_every": 0, "training.validation_windows": 1, "training.sample_every": 0,
                    "training.checkpoint_every": 500, **settings}
        stamp, model = run / "quality.json", run / "last.safetensors"
        preset = ROOT / f"trainer/configs/{preset}.toml"
        recipe = preset.read_text()
        if stamp.exists():
            result = json.loads(stamp.read_text())
            if (result["settings"], result["preset"]) == (settings, recipe) and model.exists():
                return result | {"model": model}
            shutil.rmtree(run)
        resume = (run / "state.safetensors").exists()
        if not resume:
            shutil.rmtree(run, ignore_errors=True)
        print(f"training {name}", file=sys.stderr, flush=True)
        settings_here = dict(settings)
        if left_out := settings_here.pop("without", None):
            # A preset's table cannot be taken away by a setting.
            tables = re.split(r"\n(?=(?:#.*\n)*\[)", recipe)
            preset = self.runs / f"{name}.toml"
            self.runs.mkdir(parents=True, exist_ok=True)
            preset.write_text("\n".join(table for table in tables if f"[{left_out}]" not in table))
        sets = [part for key, value in settings_here.items() for part in ("--set", f"{key}={toml(value)}")]
        cpu, clock = cpu_seconds(), time.monotonic()
        self.command("grug-trainer", "train", preset, "--run-dir", run, *["--resume"] * resume, *sets)
        result = {"settings": settings, "preset": recipe, "cpu_s": None if resume else cpu_seconds() - cpu,
                  "wall_s": None if resume else time.monotonic() - clock, "params": parameters(model)}
        stamp.write_text(json.dumps(result))
        return result | {"model": model}

    def once(self, model, measure, *what):
        """What `measure` gives of a model; measured once, and kept beside the model."""
        known, key = model.parent / "measured.json", " ".join(map(str, (measure.__name__, *what)))
        fresh = known.exists() and known.stat().st_mtime >= model.stat().st_mtime
        found = json.loads(known.read_text()) if fresh else {}
        if key not in found:
            found[key] = measure(model, *what)
            known.write_text(json.dumps(found))
        return found[key]

    def evaluate(self, model, data, last, *more):
        """Mean nats a byte over windows of the model's context that do not overlap, and how many bytes that were."""
        return self.once(model, self.windows, data, last, *more)

    def windows(self, model, data, last, *more):
        text = self.command("grug-trainer", "eval", model, data, "--last", last, "--threads", self.threads, *more)
        found = re.match(rb"([\d.]+) nats.* over (\d+) bytes", text)
        return float(found[1]), int(found[2])

    def stream(self, model, data, last):
        """Mean nats a byte as a session of the library sees the text: one stream, contexts that slide."""
        return self.once(model, self.one_stream, data, last)

    def one_stream(self, model, data, last):
        text = Path(data).read_bytes()
        part = self.runs / "held-out.tmp"
        part.write_bytes(text[int(len(text) * (1 - last)):])
        return json.loads(self.command("grug", "score", model, part, "--json", "--threads", self.threads))["nats_per_byte"]


def toml(value):
    """As a value of TOML, which differs from JSON in tables alone."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def header(model):
    with open(model, "rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))


def parameters(model):
    total = 0
    for name, tensor in header(model).items():
        if name != "__metadata__":
            count = 1
            for side in tensor["shape"]:
                count *= side
            total += count
    return total


def bits(nats):
    return nats / 0.6931471805599453


def table(rows):
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows[1:]:
        print("| " + " | ".join(str(cell) for cell in row) + " |")


def seconds(value):
    return "resumed" if value is None else f"{value:.0f}"


def shakespeare(bench, args):
    steps = STEPS
    if args.seconds:
        warm, trial = 20, 120
        short = bench.train("speed-short", [SHAKESPEARE], {"training.steps": warm})
        longer = bench.train("speed-long", [SHAKESPEARE], {"training.steps": trial})
        step = (longer["wall_s"] - short["wall_s"]) / (trial - warm)
        start = max(0.0, short["wall_s"] - warm * step)
        steps = int((args.seconds - start) / step)
        print(f"{step * 1e3:.0f} ms a step: {steps} steps in {args.seconds:.0f} s", file=sys.stderr)
    settings = {"training.steps": steps, **dict(args.set)}
    run = bench.train(args.name or f"shakespeare-{steps}", [SHAKESPEARE], settings)
    nats, counted = bench.evaluate(run["model"], SHAKESPEARE, 0.1)
    streamed = bench.stream(run["model"], SHAKESPEARE, 0.1)
    batch = settings.get("training.batch_size", BATCH) * settings.get("model.context_bytes", CONTEXT)
    table([
        ["", "parameters", "training bytes", "nats a byte", "bits a byte", "seconds", "core-seconds"],
        ["nanoGPT's CPU recipe, as stated in this script", f"{NANOGPT['params'] / 1e6:.2f} M", f"{BUDGET:,}",
         f"{NANOGPT['nats']:.4f}", f"{bits(NANOGPT['nats']):.3f}", NANOGPT["seconds"], 2 * NANOGPT["seconds"]],
        ["ours, windows of its training context that do not overlap", f"{run['params'] / 1e6:.3f} M",
         f"{settings['training.steps'] * batch:,}", f"{nats:.4f}", f"{bits(nats):.3f}", seconds(run["wall_s"]), seconds(run["cpu_s"])],
        ["ours, one stream through the library's session", "", "", f"{streamed:.4f}", f"{bits(streamed):.3f}", "", ""],
    ])
    print(f"""
All over the whole last 10 % of data/shakespeare.txt ({counted:,} bytes predicted by ours, where whole windows are counted).
The first two rows have the same measure: the text is cut into windows of the training context, and each byte is predicted
from those before it in its window. In the third row at least half a context is before each, once the first are over.""")


# What the ablations and the novels were trained with: ReLU² and as many heads of keys and values as of queries. The
# preset took over what they told.
TRIALS = {"model.ffn_activation": "relu2", "model.ffn_multiplier": 4, "model.n_kv_heads": 0}

# What each option of theirs is when it is the other way.
FLIPS = {
    "recipe": ("the recipe of the trials", {}),
    "no-conv": ("without the convolution, embedding 128 wide", {"without": "model.conv_frontend", "model.embedding_dim": 128}),
    "conv-2": ("a convolution over 2 bytes instead of 4", {"model.conv_frontend.kernels": [2]}),
    "learned": ("learned positions instead of RoPE", {"model.positions": "learned", "model.max_positions": CONTEXT}),
    "sinusoidal": ("sinusoidal positions instead of RoPE", {"model.positions": "sinusoidal"}),
    "layer-norm": ("LayerNorm instead of RMSNorm", {"model.norm": "layer"}),
    "no-embedding-norm": ("without the norm of the embedding", {"model.embedding_norm": False}),
    "no-qk-norm": ("without QK-norm", {"model.qk_norm": False}),
    "gelu": ("GELU instead of ReLU²", {"model.ffn_activation": "gelu"}),
    "swiglu": ("SwiGLU instead of ReLU², multiplier 3", {"model.ffn_activation": "swiglu", "model.ffn_multiplier": 3}),
    "bias": ("biases", {"model.bias": True}),
    "window": ("attention over the last 64 bytes only", {"model.attention_window": 64}),
    "tied": ("tied head, embedding 128 wide", {"model.tied_head": True, "model.embedding_dim": 128}),
    "no-softcap": ("without the soft cap", {"model.logit_softcap": 0.0}),
    "gqa": ("one head of keys and values for four of queries", {"model.n_kv_heads": 1}),
    "adamw": ("AdamW instead of Muon", {"optimizer.type": "adamw", "optimizer.beta1": 0.9, "optimizer.beta2": 0.99,
                                        "optimizer.weight_decay": 0.1, "optimizer.embedding_lr_multiplier": 1.0}),
}


def ablations(bench, args):
    seeds = range(1, args.seeds + 1)
    each = [f"seed {seed}" for seed in seeds] if args.seeds > 1 else []
    rows = [["change", "parameters", *each, "nats a byte", "worse by", "core-seconds"]]
    base = None
    for name, (what, flip) in FLIPS.items():
        if args.only is not None and name not in ("recipe", *args.only):
            continue
        nats, cost = [], 0.0
        for seed in seeds:
            settings = {"training.steps": args.steps, "training.seed": seed, **TRIALS, **flip}
            run = bench.train(f"ablation-{args.steps}-{name}-{seed}", [SHAKESPEARE], settings)
            nats.append(bench.evaluate(run["model"], SHAKESPEARE, 0.1)[0])
            cost += (run["cpu_s"] or 0.0) / args.seeds
        mean = sum(nats) / len(nats)
        base = mean if base is None else base
        rows.append([what, f"{run['params'] / 1e6:.3f} M", *(f"{one:.4f}" for one in nats[:len(each)]), f"{mean:.4f}",
                     f"{mean - base:+.4f}", seconds(cost)])
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    print(f"{args.steps} steps, {args.steps * BATCH * CONTEXT:,} training bytes each.\n")
    table(rows)


# name, settings beyond the preset's, more for the evaluation
NOVEL_MODELS = [
    ("single stream, published objective (bidirectional, one byte learned a window of 64)",
     {"model.attention": "bidirectional", "model.context_bytes": 64, "model.positions": "sinusoidal",
      "model.pad_short_input": True, "model.conv_frontend.kernels": [3], "training.batch_size": 8,
      "data.stride": 16}, ["--stride", 64]),
    ("single stream, causal", {}, []),
    ("parallel streams, causal: fine 2×128, coarse 3×192 every 4 bytes",
     {"model.n_layers": 2,
      "model.aggregated_stream": {"d_model": 192, "n_layers": 3, "kernel": 8, "stride": 4}}, []),
]


def compressors(train, held):
    """Bits a byte of `held` where the compressor has seen `train`: as a prefix, so by the difference of two sizes."""
    both = train + held
    yield "xz -9e, training text as prefix", "difference of two sizes", lambda data: len(
        lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)), both, train
    if shutil.which("zstd"):
        yield "zstd --ultra -22 --patch-from", "the training text is the reference", None, both, train
    else:
        print("zstd is not installed: left out", file=sys.stderr)
    try:
        import brotli
        yield "brotli -q 11, window of 16 MB", "difference of two sizes", lambda data: len(
            brotli.compress(data, quality=11, lgwin=24)), both, train
    except ImportError:
        print("the Python package brotli is not installed: left out", file=sys.stderr)


def novels(bench, args):
    files = sorted(Path(args.folder).glob("*.txt"))
    if not files:
        sys.exit(f"{args.folder}: no .txt files; any few megabytes of prose will do, docs/quality.md says which we used")
    bench.runs.mkdir(parents=True, exist_ok=True)
    corpus = bench.runs / "novels.bin"
    text = b"".join(file.read_bytes() for file in files)
    corpus.write_bytes(text)
    start = int(len(text) * (1 - args.last))
    train, held = text[:start], text[start:]
    rows = [["model", "parameters", "training bytes", "training or compressing, core-seconds", "bits a byte"]]
    for n, (what, settings, more) in enumerate(NOVEL_MODELS):
        settings = {"training.steps": args.steps, "data.validation_fraction": args.last, **TRIALS, **settings}
        run = bench.train(f"novels-{args.steps}-{n}", [corpus], settings)
        nats, _ = bench.evaluate(run["model"], corpus, args.last, *more)
        seen = args.steps * settings.get("training.batch_size", BATCH) * settings.get("model.context_bytes", CONTEXT)
        rows.append([what, f"{run['params'] / 1e6:.3f} M", f"{seen:,}", seconds(run["cpu_s"]), f"{bits(nats):.3f}"])
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    for what, how, size, both, prefix in compressors(train, held):
        cpu, own = cpu_seconds(), time.process_time()
        if size:
            count = size(both) - size(prefix)
        else:
            names = [bench.runs / "prefix.tmp", bench.runs / "held-out.tmp"]
            for name, data in zip(names, (prefix, held)):
                name.write_bytes(data)
            count = len(subprocess.run(["zstd", "--ultra", "-22", "--long=27", "-q", "-c", f"--patch-from={names[0]}",
                                        names[1]], check=True, capture_output=True).stdout)
        cost = cpu_seconds() - cpu + time.process_time() - own
        rows.append([f"{what} ({how})", "", f"{len(prefix):,}", f"{cost:.0f}", f"{8 * count / len(held):.3f}"])
    print(f"{len(text):,} bytes of {len(files)} files, in the order of their names; the last {len(held):,} are held out.\n")
    table(rows)


def drafted(text, start, longest, shortest, ahead, seen=b""):
    """Passes that writing text[start:] takes, were the bytes after the last occurrence of its end drafted each time.

    A pass takes the drafted bytes in and gives the sampler a distribution after each; the sampler draws as ever, and the
    draft's bytes count as far as they are what it drew. So the text is what it would be without drafts, and how many passes
    it takes can be told from the text."""
    last, text = {}, seen + text
    start += len(seen)
    known = shortest

    def learn(end):
        nonlocal known
        while known < end:  # n-grams that end at `known`, with a byte after them
            for n in range(shortest, min(longest, known) + 1):
                last[text[known - n:known]] = known
            known += 1

    at, passes = start, 0
    while at < len(text):
        learn(at)
        found = next((last[text[at - n:at]] for n in range(longest, shortest - 1, -1) if text[at - n:at] in last), None)
        accepted = 0
        if found is not None:
            # A draft may run into itself: what repeats, repeats.
            draft = bytearray(text[found:min(found + ahead, at)])
            while len(draft) < ahead:
                draft.append(draft[len(draft) - (at - found)])
            while accepted < ahead and at + accepted < len(text) and draft[accepted] == text[at + accepted]:
                accepted += 1
        at += accepted + 1
        passes += 1
    return passes


def drafts(bench, args):
    prompt = Path(args.prompt_file).read_bytes()[:args.prompt_bytes]
    seen = Path(args.seen).read_bytes() if args.seen else b""
    bench.runs.mkdir(parents=True, exist_ok=True)
    start = bench.runs / "prompt.tmp"
    start.write_bytes(prompt)
    rows = [["sampling", *(f"{ahead} bytes drafted" for ahead in args.ahead)]]
    for what, temperature in (("greedy", 0), ("temperature 0.8", 0.8)):
        counts = [[0, 0] for _ in args.ahead]
        for seed in range(1 if temperature == 0 else args.seeds):
            text = bench.command("grug", "generate", args.model, "--prompt-file", start, "-n", args.bytes, "--temperature",
                                 temperature, "--seed", seed, "--threads", bench.threads)
            for count, ahead in zip(counts, args.ahead):
                count[0] += len(text)
                count[1] += drafted(prompt + text, len(prompt), args.longest, args.shortest, ahead, seen)
        rows.append([what, *(f"{written / passes:.2f}" for written, passes in counts)])
    print(f"Bytes a forward pass ({args.bytes:,} bytes after {len(prompt):,} of {args.prompt_file}).\n")
    table(rows)


def setting(text):
    key, _, value = text.partition("=")
    return key, json.loads(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=ROOT / "target/release", help="folder with grug and grug-trainer")
    parser.add_argument("--runs", default=ROOT / "runs/quality", help="folder of the runs")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads to train with")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("shakespeare")
    one.add_argument("--seconds", type=float, default=0, help="train for about this time instead of nanoGPT's bytes")
    one.add_argument("--set", type=setting, action="append", default=[], metavar="KEY=JSON")
    one.add_argument("--name", help="of the run's folder")
    one.set_defaults(run=shakespeare, needs=["grug", "grug-trainer"])
    one = commands.add_parser("ablations")
    one.add_argument("--steps", type=int, default=STEPS)
    one.add_argument("--seeds", type=int, default=1, help="each row is trained with so many seeds: what they change is noise")
    one.add_argument("--only", nargs="*", choices=FLIPS, help="these rows alone, beside the recipe's")
    one.set_defaults(run=ablations, needs=["grug", "grug-trainer"])
    one = commands.add_parser("novels")
    one.add_argument("folder")
    one.add_argument("--steps", type=int, default=STEPS)
    one.add_argument("--last", type=float, default=0.05, help="share of the text that is held out, at its end")
    one.set_defaults(run=novels, needs=["grug", "grug-trainer"])
    one = commands.add_parser("drafts")
    one.add_argument("model")
    one.add_argument("prompt_file")
    one.add_argument("--prompt-bytes", type=int, default=200)
    one.add_argument("--bytes", type=int, default=4000)
    one.add_argument("--seeds", type=int, default=3)
    one.add_argument("--longest", type=int, default=12)
    one.add_argument("--shortest", type=int, default=3)
    one.add_argument("--ahead", type=int, nargs="*", default=[2, 4, 8])
    one.add_argument("--seen", help="text whose n-grams are known as well")
    one.set_defaults(run=drafts, needs=["grug"])
    args = parser.parse_args()
    args.run(Bench(args), args)


main()
