"""Lets a model write only what a grammar allows:

    python constrained.py model.safetensors --regex '(Mon|Tues|Wednes)day, [0-9]{1,2}:[0-9]{2}'
    python constrained.py model.safetensors --schema person.json --prompt 'A person: '
    python constrained.py model.safetensors --gbnf list.gbnf -n 5
"""

import argparse
from pathlib import Path

import grug

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("model")
kind = arguments.add_mutually_exclusive_group(required=True)
kind.add_argument("--regex", help="a regular expression that the whole text matches")
kind.add_argument("--schema", type=Path, help="a file with a JSON Schema")
kind.add_argument("--gbnf", type=Path, help="a file with a grammar in llama.cpp's notation")
arguments.add_argument("--prompt", default="", help="what the model reads first; the grammar does not count it")
arguments.add_argument("-n", type=int, default=3, help="how many texts")
arguments.add_argument("--bytes", type=int, default=1000, help="at most so many bytes each")
given = arguments.parse_args()

if given.regex is not None:
    grammar = grug.Grammar.regex(given.regex)
elif given.schema is not None:
    grammar = grug.Grammar.json_schema(given.schema.read_text(encoding="utf-8"))
else:
    grammar = grug.Grammar.gbnf(given.gbnf.read_text(encoding="utf-8"))

session = grug.Session(grug.Model(given.model))
session.feed(given.prompt)
for seed in range(given.n):
    # Each text begins at the prompt, which is computed once.
    text = session.fork().generate(
        grug.Sampler(temperature=0.8, grammar=grammar, seed=seed), max_bytes=given.bytes
    )
    print(text.decode(errors="replace"))  # the last character may be cut at so many bytes
