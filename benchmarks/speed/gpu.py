"""One GPU, wall seconds: the published network of Ho et al., the default network, a whole study, and what may not move.

Where there is no GPU everything is run as a toy on the CPU: that proves that it runs, and no line of it is a figure.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import table
import torch
from proofs import PROOFS
from race import Entry, Race, Where, run

BF16 = {"precision": "bf16"}
AS_IT_COMES, OURS = "ddpmkit, as it comes", "ddpmkit, bf16"
SCRIPT, SCRIPT_BF16 = "diffusers, as its script runs it", "diffusers, as its script runs it, bf16"
TUNED, EAGER = "diffusers, tuned, bf16", "diffusers, tuned but not compiled, bf16"
GRAPHS = "diffusers, tuned, bf16, reduce-overhead"
PLAIN = "plain torch around ddpmkit's network, tuned but not compiled, bf16"


def races(*, gpu: bool, peers: bool) -> tuple[Race, Race, Race]:
    """Training and sampling of the large network, and training of the default one."""
    large = "32x32, Ho et al." if gpu else "32x32, toy"
    out = []
    for doing, unit in (("training", "step"), ("sampling", "evaluation")):
        entries = [
            Entry(AS_IT_COMES, "ours", doing),
            Entry(OURS, "ours", doing, BF16),
            Entry("ddpmkit, bf16, --compile on", "ours", doing, {**BF16, "compiled": True}),
        ]
        if peers:
            make = f"diffusers_{doing}"
            entries += [
                Entry(SCRIPT, "peers", make),
                Entry(SCRIPT_BF16, "peers", make, BF16),
                Entry(TUNED, "peers", make, {**BF16, "tuned": True, "compiled": True}),
                Entry(GRAPHS, "peers", make, {**BF16, "tuned": True, "compiled": True, "mode": "reduce-overhead"}),
                Entry(EAGER, "peers", make, {**BF16, "tuned": True}),
            ]
        if doing == "training":
            entries.append(Entry(PLAIN, "peers", "plain_training", {**BF16, "tuned": True}))
        if not gpu:  # minutes of a compiler prove nothing here; make bench compiles
            entries = [e for e in entries if not e.options.get("compiled")]
        out.append(Race(f"{large}, {doing}", large, unit, tuple(entries)))
    default = Race("8x8, the default network, training", "8x8", "step", (Entry(AS_IT_COMES, "ours", "training"),))
    return out[0], out[1], default


Rows = list[dict[str, Any]]


def main(blocks: int, to: Path, *, dry: bool = False, peers: bool = True, seconds: float = 465.0) -> int:
    """Measure until the time is over, hold the figures against what is wanted, write the results."""
    gpu = torch.cuda.is_available() and not dry
    started = time.monotonic()

    def left() -> float:
        return seconds - (time.monotonic() - started)

    def until(share: float) -> float:
        return started + share * seconds

    where = Where(
        device="cuda" if gpu else "cpu", threads=1, small=not gpu, blocks=blocks if gpu else min(blocks, 2), by="wall",
        patience=0.35 * seconds if gpu else 600.0, together=gpu,
    )  # fmt: skip
    told = table.circumstances(where.device)
    training, sampling, default = races(gpu=gpu, peers=peers)
    # Compilers take longest: the contenders of a race get ready side by side, and nothing is timed before they are. The
    # next race's begin when these have stopped: they would compile on the GPU that is timed, and fill its memory.
    found: list[tuple[Race, Rows]] = []
    for race, ready, share in ((training, 0.30, 0.44), (sampling, 0.64, 0.70)):
        print(race.title, file=sys.stderr)
        patience = max(1.0, until(ready) - time.monotonic()) if gpu else where.patience
        found.append((race, run(race, replace(where, deadline=until(share), patience=patience))))
    found.append((default, run(default, replace(where, deadline=until(0.76)))))
    claims = speed_claims(*(rows for _, rows in found))
    proofs = [proof(name, where, max(5.0, left() - 5)) for name in PROOFS]
    claims = [*claims, *proofs]
    for claim in claims if not gpu else ():
        claim["verdict"] = "not measured on a GPU"
    took = time.monotonic() - started
    record = {**told, "gpu": gpu, "blocks": where.blocks, "seconds": took, "claims": claims}
    record["races"] = [{"title": r.title, "unit": r.unit, "rows": rows} for r, rows in found]
    lines = [
        "# Speed on a GPU",
        "",
        "`make bench-gpu`. Wall time, medians of blocks that take turns, each contender in a process of its own. "
        "Getting ready (imports, compilation, recording) is shown and not counted; of memory the most that was "
        f"reserved. It took {took:.0f} s.",
        "",
        table.words(told),
        "",
    ]
    if not gpu:
        lines += ["**A dry run on a CPU with toy networks: it shows that everything runs. Not measured on a GPU.**", ""]
    lines += table.claims_table(claims)
    for race, rows in found:
        lines += table.race_table(race.title, race.unit, where.by, rows)
    table.write("gpu" if gpu else "gpu-dry", to, record, lines)
    return 0


def speed_claims(training: Rows, sampling: Rows, default: Rows) -> list[dict[str, Any]]:
    """Hold the medians against what is wanted; a row that is missing leaves its claim not measured, and says why."""
    out = []
    for doing, rows in (("training", training), ("sampling", sampling)):
        out.append(_faster(f"{doing}, bf16, against diffusers as its script runs it", rows, OURS, SCRIPT_BF16, 3.0))
        tuned = min((TUNED, GRAPHS), key=lambda name: _row(rows, name).get("median", float("inf")))  # its better one
        out.append(_faster(f"{doing}, bf16, against tuned diffusers", rows, OURS, tuned, 1.5))
    what = "training as it comes, against diffusers as its script runs it"
    out.append(_faster(what, training, AS_IT_COMES, SCRIPT, 2.0))
    ours = _row(default, AS_IT_COMES)
    if (why := _missing(ours)) is None:
        ms = 1e3 * ours["median"]
        out.append(_claim("the default network", "at most 4 ms a step", f"{ms:.2f} ms", ms <= 4))
    else:
        out.append(_claim("the default network", "at most 4 ms a step", why, None))
    for doing, rows in (("training", training), ("sampling", sampling)):
        a, b = _row(rows, OURS), _row(rows, SCRIPT_BF16)
        what, wanted = f"memory in {doing}, bf16, in that of diffusers as its script runs it", "at most 1.1"
        if (why := _missing(a) or _missing(b)) is None:
            share = a["memory"] / b["memory"]
            out.append(_claim(what, wanted, f"{share:.2f}", share <= 1.1))
        else:
            out.append(_claim(what, wanted, why, None))
    return out


def _faster(what: str, rows: Rows, ours: str, theirs: str, times: float) -> dict[str, Any]:
    a, b = _row(rows, ours), _row(rows, theirs)
    wanted = f"at least {times:.1f} times"
    why = _missing(a) or _missing(b)
    if why is not None:
        return _claim(what, wanted, why, None)
    ratio = b["median"] / a["median"]
    return _claim(what, wanted, f"{ratio:.2f} times", ratio >= times)


def _row(rows: Rows, name: str) -> dict[str, Any]:
    return next((row for row in rows if row["row"] == name), {"failed": f"{name}: not in this run"})


def _missing(row: dict[str, Any]) -> str | None:
    return None if "median" in row else str(row.get("failed") or "no time was left")


def _claim(what: str, wanted: str, found: str, ok: bool | None) -> dict[str, Any]:
    verdict = {True: "pass", False: "falls short", None: "not measured"}[ok]
    return {"claim": what, "wanted": wanted, "found": found, "verdict": verdict}


def proof(name: str, where: Where, limit: float) -> dict[str, Any]:
    """Run a proof in a process of its own, and take no longer than the limit."""
    what, wanted, _ = PROOFS[name]
    asked = json.dumps({"name": name, "device": where.device, "small": where.small})
    command = [sys.executable, str(Path(__file__).parent), "--proof", asked]
    print(what, file=sys.stderr)
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            late = f"not done in the {limit:.0f} s that were left"
            return _claim(what, wanted, late, False if name == "study" else None)
        finally:
            if process.poll() is None:  # with all that it started: a study has workers of its own
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        last = (err.strip().splitlines() or ["no word"])[-1]
        return _claim(what, wanted, f"failed: {last[:160]}", False)
    told = json.loads(out.splitlines()[-1])
    return _claim(what, wanted, told["found"], told["ok"])
