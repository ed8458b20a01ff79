#!/usr/bin/env python3
"""Writes src/quant/q_iq_tables.{h,c}, the codebooks of the IQ weight types, and q_iq_index.c, the
order in which their encoder searches them (q_book.h says what its numbers are), and
src/kernels/x86/vbmi_tables.h, the codebooks in few bits.

The values are constants of the format: a file written with other ones could not be read. They are
taken from the Python package `gguf` (pip install gguf), which holds them packed.

usage: gen_iq_tables.py [DIR]      (default: src/quant beside this script)
"""
import os
import sys

import numpy as np
from gguf import quants

# (C name, class, bytes of a row, what a row is)
TABLES = [
    ("q_iq2_xxs_grid", quants.IQ2_XXS, 8, "IQ2_XXS: 8 magnitudes"),
    ("q_iq2_xs_grid", quants.IQ2_XS, 8, "IQ2_XS: 8 magnitudes"),
    ("q_iq2_s_grid", quants.IQ2_S, 8, "IQ2_S: 8 magnitudes"),
    ("q_iq3_xxs_grid", quants.IQ3_XXS, 4, "IQ3_XXS: 4 magnitudes"),
    ("q_iq3_s_grid", quants.IQ3_S, 4, "IQ3_S: 4 magnitudes"),
    ("q_iq1_grid", quants.IQ1_S, 8, "IQ1_S and IQ1_M: 8 of -1, 0, 1 as int8"),
]

HEAD = """/*
 * Codebooks of the IQ types: constants of the file format. Value i of a row is byte i of the
 * integer, counted from the lowest.
 *
 * Written by tools/gen_iq_tables.py; do not edit.
 */
"""

INDEX_HEAD = """/*
 * The codebooks of q_iq_tables.c in the order of the search (struct q_book).
 *
 * Written by tools/gen_iq_tables.py; do not edit.
 */
#include "quant/q_book.h"

// clang-format off
"""


def listing(kind, name, values, form, per):
    lines = [", ".join(form % v for v in values[i:i + per]) for i in range(0, len(values), per)]
    return f"static const {kind} {name}[{len(values)}] = {{\n    " + ",\n    ".join(lines) + ",\n};\n"


def index(name, rows):
    """The tables of one struct q_book."""
    levels = sorted({int(v) for v in rows.flatten()}, key=lambda v: v - 256 if v > 127 else v)
    digits = [[levels.index(int(v)) for v in r] for r in rows]
    if len(levels) == 3:
        digits = [[3 * r[i] + r[i + 1] for i in range(0, 8, 2)] for r in digits]
    radix = 9 if len(levels) == 3 else 8
    cells = sorted((radix * r[0] + r[1], radix * r[2] + r[3], code) for code, r in enumerate(digits))
    member = [0] * (2 * radix * radix)
    for a, b, _ in cells:
        member[2 * a + b // 64] |= 1 << b % 64
    first = [sum(c[0] < a for c in cells) for a in range(radix * radix + 1)]
    short = name[2:]
    levels = [v - 256 if v > 127 else v for v in levels]
    return ("\n" + listing("uint16_t", f"first_{short}", first, "%d", 20)
            + listing("uint8_t", f"second_{short}", [c[1] for c in cells], "%d", 25)
            + listing("uint16_t", f"code_{short}", [c[2] for c in cells], "%d", 20)
            + listing("uint64_t", f"member_{short}", member, "0x%016x", 5)
            + f"const struct q_book {name.replace('grid', 'book')} = {{\n"
            + f"    .radix = {radix},\n    .first = first_{short},\n    .second = second_{short},\n"
            + f"    .code = code_{short},\n    .member = member_{short},\n"
            + f"    .level = {{{', '.join(map(str, levels))}}},\n}};\n")


CODES_HEAD = """/*
 * The codebooks of quant/q_iq_tables.h with the number of each level in place of its value, as bytes
 * for lookups in registers: [0] the first half of a row, [1] the second. Rows of 8 values have 2
 * bits for each (8, 25, 43 are 0, 1, 2; of IQ1, 0, 1, -1), rows of 4 values have 4 (4, 12, 20, ... are
 * 0, 1, 2, ..., of IQ3_S 1, 3, 5, ...).
 *
 * Written by tools/gen_iq_tables.py; do not edit.
 */
#ifndef PONDER_KERNELS_X86_VBMI_TABLES_H
#define PONDER_KERNELS_X86_VBMI_TABLES_H

#include <stdint.h>

// clang-format off
"""


def codes(name, rows):
    """The halves of all rows as bytes of level numbers."""
    half = rows.shape[1] // 2
    levels = sorted({int(v) for v in rows.flatten()})
    out = []
    for part in (rows[:, :half], rows[:, half:]):
        v = [sum(levels.index(int(x)) << 8 // half * i for i, x in enumerate(r)) for r in part]
        lines = [", ".join(f"{x:3d}" for x in v[i:i + 24]) for i in range(0, len(v), 24)]
        out.append("    {" + ",\n     ".join(lines) + "},\n")
    return (f"\n_Alignas(64) static const uint8_t {name[2:].replace('grid', 'codes')}[2][{len(rows)}] = {{\n"
            + "".join(out) + "};\n")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "src", "quant")
    decl, body, order, few = [], [], [], []
    for name, cls, width, what in TABLES:
        cls.init_grid()
        rows = cls.grid.reshape(cls.grid_shape).astype(np.int64) & 0xFF
        assert rows.shape[1] == width
        words = [sum(int(v) << 8 * i for i, v in enumerate(r)) for r in rows]
        order.append(index(name, rows))
        few.append(codes(name, rows))
        kind = "uint64_t" if width == 8 else "uint32_t"
        decl.append((f"extern const {kind} {name}[{len(words)}];", what))
        per, digits = (5, 16) if width == 8 else (8, 8)
        body.append(f"\nconst {kind} {name}[{len(words)}] = {{\n")
        for i in range(0, len(words), per):
            body.append("    " + ", ".join(f"0x{w:0{digits}x}" for w in words[i:i + per]) + ",\n")
        body.append("};\n")
    with open(os.path.join(out, "q_iq_tables.h"), "w") as f:
        f.write(HEAD + "#ifndef PONDER_QUANT_Q_IQ_TABLES_H\n#define PONDER_QUANT_Q_IQ_TABLES_H\n\n"
                "#include <stdint.h>\n\n" + "".join(f"{d:<42} /* {what} */\n" for d, what in decl)
                + "\n#endif\n")
    with open(os.path.join(out, "q_iq_tables.c"), "w") as f:
        f.write(HEAD + '#include "quant/q_iq_tables.h"\n\n// clang-format off\n' + "".join(body)
                + "// clang-format on\n")
    with open(os.path.join(out, "q_iq_index.c"), "w") as f:
        f.write(INDEX_HEAD + "".join(order) + "// clang-format on\n")
    with open(os.path.join(out, "..", "kernels", "x86", "vbmi_tables.h"), "w") as f:
        f.write(CODES_HEAD + "".join(few) + "// clang-format on\n\n#endif\n")


main()
