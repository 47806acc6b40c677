"""Finds the lines of a file that a model did not expect: python anomalies.py MODEL FILE [HOW_MANY]

The model reads the file from its beginning, and each line is measured by how many bits a byte it took the model by
surprise. A log whose usual lines the model has learned shows what is unusual in it.
"""

import heapq
import math
import sys

import grug

if not 3 <= len(sys.argv) <= 4:
    sys.exit("usage: anomalies.py MODEL FILE [HOW_MANY]")
path, file, most = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 10
session = grug.Session(grug.Model(path))
surprises = []
with open(file, "rb") as lines:
    for number, line in enumerate(lines, 1):
        nats = session.score(line)
        surprises.append((nats / math.log(2) / len(line), number, line))
for bits, number, line in heapq.nlargest(most, surprises):
    print(f"{bits:6.2f} bits a byte, line {number}: {line.decode(errors='replace').rstrip()}")
