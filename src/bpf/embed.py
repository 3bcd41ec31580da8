#!/usr/bin/python3
"""Make a C header with a file's bytes: embed.py FILE NAME HEADER."""
import pathlib
import sys

data = pathlib.Path(sys.argv[1]).read_bytes()
rows = (",".join(str(b) for b in data[i : i + 32]) for i in range(0, len(data), 32))
pathlib.Path(sys.argv[3]).write_text(
    f"static const unsigned char {sys.argv[2]}[] __attribute__((aligned(8))) = {{\n"
    + ",\n".join(rows) + "\n};\n", encoding="ascii")
