"""Streams text from a model, until Ctrl-C at the latest: python generate.py MODEL [PROMPT [BYTES]]

    pip install ./bindings/python
"""

import sys

import grug

if not 2 <= len(sys.argv) <= 4 or sys.argv[1].startswith("-"):
    sys.exit("usage: generate.py MODEL [PROMPT [BYTES]]")
path, prompt, length = (sys.argv[1:] + ["", "400"][len(sys.argv) - 2 :])[:3]
with grug.Model(path) as model, grug.Session(model) as session, grug.Sampler(temperature=0.8) as sampler:
    session.feed(prompt)
    print(prompt, end="", flush=True)
    try:
        for piece in session.stream(sampler, max_bytes=int(length)):
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass  # between two bytes: the session holds what was printed
    print()
