"""Compile every kernel for a GPU that need not be there; prints a line of JSON. Run by test_compiled.py."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ddpmkit.kernels import group_norm_triton, noise_triton

POINTERS = {"stats", "weight", "bias", "parts", "rows"}
GROUPS = {"CG": 8, "GB": 2, "CB": 8, "BLOCK": 64, "SILU": True}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "forward": (group_norm_triton.forward_kernel, {**GROUPS, "NHWC": True, "before": None}),
    "backward": (group_norm_triton.backward_kernel, {**GROUPS, "NHWC": True, "before": None}),
    "backward-nchw": (
        group_norm_triton.backward_kernel,
        {**GROUPS, "GB": 1, "NHWC": False, "scale": None, "shift": None},
    ),
    "normal": (noise_triton.normal_kernel, {"ROWS": 2, "BLOCK": 64, "position": None}),
    "uniform": (noise_triton.uniform_kernel, {"ROWS": 64}),
}


def kind(name: str, case: str) -> str:
    """The type of an argument, as Triton writes it."""
    if name in ("index", "position"):
        return "*i64"
    if name == "out":
        return "*fp64" if case == "uniform" else "*fp32"
    if name in POINTERS:
        return "*fp32"
    if name == "eps":
        return "fp32"
    return "*bf16" if name in ("x", "y", "dx", "dy", "before", "scale", "shift") else "i32"


def main(arch: int) -> None:
    """Compile all cases for one architecture."""
    found = {}
    for case, (kernel, constants) in CASES.items():
        types = {n: "constexpr" if n in constants else kind(n, case) for n in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=types, constexprs=constants)
        made = triton.compile(source, target=GPUTarget("cuda", arch, 32))
        ptx = made.asm["ptx"]
        found[case] = {"atomic": re.findall(r"\b(?:atom|red)\.\S+", ptx), "cubin": len(made.asm["cubin"])}
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
