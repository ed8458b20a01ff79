#!/usr/bin/env python3
"""Writes src/quant/q_iq_tables.{h,c}: the codebooks of the IQ weight types.

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


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "src", "quant")
    decl, body = [], []
    for name, cls, width, what in TABLES:
        cls.init_grid()
        rows = cls.grid.reshape(cls.grid_shape).astype(np.int64) & 0xFF
        assert rows.shape[1] == width
        words = [sum(int(v) << 8 * i for i, v in enumerate(r)) for r in rows]
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


main()
