"""What must be said below a table: how its numbers came about, and what they are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ddpmkit.report.judge.by_cell import by_cell, named
from ddpmkit.report.judge.class_notes import class_notes, evaluations
from ddpmkit.report.judge.grown import in_seeds
from ddpmkit.report.judge.some import some
from ddpmkit.report.read.bounds import bounds
from ddpmkit.report.read.by_class import classes_in
from ddpmkit.report.read.fewer import fewer_notes
from ddpmkit.report.read.frames import Records
from ddpmkit.report.read.reference import BASELINE_METRIC, BITS
from ddpmkit.statistics import ONE_RESULT, Contrast, Interaction, Interval, sign_flip_floor
from ddpmkit.study.alike import collapsed
from ddpmkit.study.excluded import grouped
from ddpmkit.text.numbers import four_digits, two_digits

FEW_NAMES = 3  # cells under another's name that are listed


def notes_of(records: Records, metrics: tuple[str, ...], states: dict[str, dict[str, int]]) -> list[str]:
    """Return the notes that follow from the records alone."""
    frame, plan = records.results, records.plan
    done = frame[frame["status"] == "done"]
    notes = []
    if plan.get("differ"):
        notes.append(f"The studies, {plan['study']}, differ in: {'; '.join(plan['differ'])}.")
    own = done["metric"].map(lambda m: records.originals.get(m, m))  # what one of several studies calls it
    seeds = len(plan["grid"]["train_seeds"])
    there = bool(frame["value"].notna().any())
    if not there:
        notes.append("There is no number yet.")
    elif seeds > 1:
        notes.append(f"[a, b]: 95 % Student-t interval over {seeds} train seeds; sample seeds are averaged inside.")
        if len(plan["cells"]) > 1 and not in_seeds(records.growths):
            notes.append(
                "Differences: paired t test by train seed, Holm over the contrasts of one metric; their intervals are "
                "at Holm's level, so that they exclude 0 exactly when the verdict says better or worse."
            )
    else:
        notes.append("One train seed: numbers without intervals, and no verdict can be given.")
    beside = own.str.endswith("-debiased") | (done["metric"].isin(list(classes_in(done, records.originals))))
    sampled = done[~own.str.startswith("NLL") & ~beside]
    notes += _protocol_notes(sampled)
    notes += [f"{text}." for text in records.said]
    if there and any(metric.startswith("FD-") for metric in metrics):
        notes.append("Not FID: FD is over another extractor than Inception's.")
    drawn = frame[frame["metric"].isin(sampled["metric"].unique())]
    steps = _sampling(records, drawn)
    if steps:
        notes.append(f"Sampling: {steps}. The row 'real, ...' is what real images of that split score.")
    notes += class_notes(records, metrics)
    copied = done.loc[own == "copy"].groupby("cell", sort=False)["value"].mean()
    if len(copied):
        text = by_cell({str(cell): f"{v:.2f}" for cell, v in copied.items()})
        notes.append(f"Copy check, 1 is clean and 0 all copies of training images: {text}.")
    if records.copies:
        notes.append(f"Some samples are likely copies of training images: {', '.join(records.copies)}.")
    for bits in BITS:
        notes += _bound_notes(done, own, bits)
    notes += _cost_notes(done)
    machines = sorted({f for f in done["fingerprint"].dropna() if f})
    if len(records.mixed) > 0:
        notes.append(f"Mixed fingerprints, the last digits may differ: {'; '.join(records.mixed)}.")
    elif len(machines) > 1:
        notes.append("Mixed fingerprints, the last digits may differ between them: " + " | ".join(machines) + ".")
    elif machines:
        notes.append(f"Computed with {machines[0]}.")
    precisions = sorted({c["settings"]["precision"] for c in plan["cells"] if "precision" in c.get("settings", {})})
    if len(precisions) > 1:
        notes.append(f"Cells of different precision are compared: {', '.join(precisions)}.")
    notes += fewer_notes(done)
    notes += [f"{text}." for text in plan.get("notes", ())]
    excluded = [(str(label), str(reason)) for label, reason in plan.get("excluded", ())]
    notes += [f"Excluded: {text}." for text in grouped(excluded)]
    if len(excluded) > 1:
        notes.append(f"Of {len(plan['cells']) + len(excluded)} cells {len(excluded)} are impossible, and were not run.")
    notes += _missing(states)
    broken = collapsed(records.problems)
    notes += broken[:5] + ([f"... and {len(broken) - 5} more; ddpmkit status"] if len(broken) > 5 else [])
    return notes


def _missing(states: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Which cells lack results, those that lack the same together; none of them is called better."""
    alike: dict[str, list[str]] = {}
    for cell, counts in states.items():
        if set(counts) - {"done"}:
            text = ", ".join(f"{n} result{'' if n == 1 else 's'} {state}" for state, n in counts.items())
            alike.setdefault(text, []).append(cell)
    notes = []
    for text, cells in alike.items():
        verdict = (
            "" if len(states) == 1 else "; it is not called better" if len(cells) == 1 else "; none is called better"
        )
        each = " each" if len(cells) > 1 else ""
        notes.append(f"{named(cells, len(states))}: {text}{each}{verdict}.")
    return notes


def _sampling(records: Records, drawn: pd.DataFrame) -> str:
    """Which samplers took how many steps, and evaluations where these differ by guidance or are not one a step."""
    by_sampler: dict[str, list[str]] = {}
    for (sampler, steps), rows in drawn.groupby(["sampler", "sampling_steps"], sort=False):
        by_sampler.setdefault(str(sampler), []).append(f"{steps}{evaluations(records, rows)}")
    parts: list[str] = []
    for sampler, every in by_sampler.items():
        told = [text.replace(" (", " steps (", 1) for text in every if "(" in text]
        plain = [text for text in every if "(" not in text]
        parts += [f"{sampler} {', '.join(plain)} steps"] if plain else []
        parts += [f"{sampler} {text}" for text in told]
    return ", ".join(parts)


def _protocol_notes(sampled: pd.DataFrame) -> list[str]:
    """How distances were measured: what extractors, or cells, share is said once."""
    definitions = sampled[["metric", "definition"]].dropna().drop_duplicates()
    by_metric: dict[str, list[list[str]]] = {}
    for name, definition in zip(definitions["metric"], definitions["definition"], strict=True):
        words = str(definition).split(" ")[1:]
        if words and words not in by_metric.setdefault(name, []):
            by_metric[name].append(words)
    protocols: dict[str, dict[str, list[str]]] = {}
    for name, every in by_metric.items():
        extractors = list(dict.fromkeys(w for words in every for w in words if w.startswith("extractor=")))
        common = [w for w in every[0] if all(w in words for words in every) and w not in extractors]
        others = [" ".join(w for w in words if w not in common and w not in extractors) for words in every]
        rest = " ".join(common) + (f", and {' / '.join(o or 'no more' for o in others)}" if any(others) else "")
        protocols.setdefault(rest, {}).setdefault(" / ".join(extractors), []).append(name)
    notes = []
    for rest, by_extractor in protocols.items():
        names = "; ".join(f"{', '.join(of)} {extractor}".rstrip() for extractor, of in by_extractor.items())
        notes.append(f"{names}; {rest}; samples are rounded to the grey levels.")
    return notes


def _cost_notes(done: pd.DataFrame) -> list[str]:
    """What the cells cost: networks of one size are named together."""
    sizes: dict[tuple[int, str], dict[str, str]] = {}
    for cell, group in done.groupby("cell", sort=False):
        row = group.iloc[0]
        if pd.notna(row["parameters"]) and pd.notna(row["flops"]):
            size = int(row["parameters"]), two_digits(row["flops"] / 1e6)
            sizes.setdefault(size, {})[str(cell)] = f"{group['train_seconds'].mean():.0f} s"
    if not sizes:
        return []
    texts = [f"{size:,} parameters, {flops} MFLOP: {by_cell(times)}" for (size, flops), times in sizes.items()]
    return [f"Cost (parameters, one evaluation, training of one seed): {'; '.join(texts)}."]


def _bound_notes(done: pd.DataFrame, own: pd.Series[str], bits: str) -> list[str]:
    """How one kind of bits/dim was bounded, with which errors, and what it is otherwise."""
    notes: list[str] = []
    nll = done[own == bits]
    if not len(nll) or not nll["definition"].notna().all():
        return notes
    defined = nll[["metric", "definition"]].drop_duplicates()
    named = zip(defined["metric"], defined["definition"], strict=True)
    text = "; ".join(" ".join((metric, *str(said).split(" ", 1)[1:])) for metric, said in named)
    errors = f"Monte-Carlo standard error at most {two_digits(nll['standard_error'].max())} bits/dim"
    if "test_set_error" in nll:
        # An older record has 0 where the estimate of the variance was negative.
        resolved = nll["test_set_error"][nll["test_set_error"] > 0]
        shared = ", the same for all cells" if nll["metric"].nunique() == 1 else ""
        error = f"{two_digits(resolved.max())}{shared}" if len(resolved) else "not resolved"
        errors += f", that of the choice of the test images {error}"
    notes.append(f"{text}; {errors}.")
    for metric, said in (("unclipped", "Unclipped"), ("train", "On images of the training split")):
        means = done.loc[own == f"{bits}-{metric}"].groupby("cell", sort=False)["value"].mean()
        if len(means):
            of = "" if bits == BASELINE_METRIC else f", {bits}"
            notes.append(f"{said}{of}: {by_cell({str(c): four_digits(v) for c, v in means.items()})} bits/dim.")
    return notes


def beyond(intervals: Mapping[str, Mapping[str, Interval]], originals: Mapping[str, str]) -> list[str]:
    """Say which metrics have intervals that reach to where the metric can't be, in one note."""
    below, above = [], []
    for metric, by in intervals.items():
        least, largest = bounds(originals.get(metric, metric))
        below += [metric] if any(i.low is not None and i.low < least for i in by.values()) else []
        above += [metric] if any(i.high is not None and i.high > largest for i in by.values()) else []
    said = [f"below 0 ({', '.join(below)})"] if below else []
    said += [f"above 1 ({', '.join(above)})"] if above else []
    if not said:
        return []
    return [
        f"Some intervals reach {' and '.join(said)}, where the metric can't be: Student's t knows no bound; more train "
        "seeds make them shorter."
    ]


def contrast_notes(
    differences: Mapping[str, Mapping[str, Contrast]],
    interactions: Mapping[str, Sequence[Interaction]],
    points: Mapping[str, Mapping[str, str]],
    seeds: int,
) -> list[str]:
    """Return the notes that follow from the contrasts: pairing, floors, margins, ties, interactions."""
    notes = []
    contrasts = [(m, cell, c) for m, cells in differences.items() for cell, c in cells.items()]
    fewer = [f"{cell} {m} {c.n}" for m, cell, c in contrasts if 0 < c.n < seeds]
    if fewer:
        notes.append(f"Paired on the seeds that both cells have, fewer than {seeds}: {some(fewer)}.")
    floors = sorted({c.n for _, _, c in contrasts if c.p_sign_flip is not None})
    if floors:
        notes.append(
            "The exact sign-flip test needs no normal law, and decides no verdict: its p can't be below "
            + ", ".join(f"{sign_flip_floor(n):.2g} with {n} seeds" for n in floors)
            + "."
        )
    margins = {m: c.margin for m, _, c in contrasts if c.margin is not None}
    if margins:
        text = ", ".join(f"{m} {margin:g}" for m, margin in margins.items())
        grown = any(c.anytime and c.anytime.stands for _, _, c in contrasts)
        tests = "two one-sided t tests, Holm over those of one metric"
        notes.append(
            f"Margin set beforehand: {text}. 'No gap larger than' it: "
            f"{'the confidence sequence lies within' if grown else tests}; without a margin nothing is ever called "
            "equal."
        )
    flat = [f"{cell} {m} {c.difference:+.3g}" for m, cell, c in contrasts if c.flat and c.difference]
    if flat:
        notes.append(
            f"The same difference on every seed: {some(flat)}. Were the values rounded? Nothing is known of the"
            " spread, so there is no interval and no test against a margin; p is the least of the sign-flip test."
        )
    ties = [f"{cell} {m}" for m, cell, c in contrasts if c.flat and not c.difference]
    if ties:
        notes.append(
            f"The same numbers on every seed: {some(ties)}. Shares, counts, rounded values tie by chance, so this is "
            "no proof that nothing can change them: p is 1, and there is no interval and no test against a margin."
        )
    axes = sorted({a for p in points.values() for a in p})
    if len(axes) > 1 and not any(interactions.values()):
        notes.append("The axes are varied one at a time: whether one depends on another can't be seen.")
    present = [(m, i) for m, crossed in interactions.items() for i in crossed if i.contrast.verdict == "interaction"]
    depends = []
    for metric, i in present:
        (a, b), (x, y), (x0, y0) = i.axes, i.levels, i.references
        depends.append(
            f"{metric}: the effect of {a} ({x} against {x0}) depends on {b}: it is {i.contrast.difference:+.3g} "
            f"at {y} relative to {y0}"
        )
    if depends:
        alone = " and ".join(dict.fromkeys(a for _, i in present for a in i.axes))
        notes.append(f"{'; '.join(depends)}. Read the cells, not the effects of {alone} alone.")
    absent = [
        m
        for m, crossed in interactions.items()
        if any(i.contrast.p is not None for i in crossed) and all(i.contrast.verdict != "interaction" for i in crossed)
    ]
    if absent:
        notes.append(f"{', '.join(absent)}: no interaction of the axes was shown; that is no proof that there is none.")
    return notes


def copy_notes(
    base: str, copies: Mapping[str, Mapping[str, str]], differences: Mapping[str, Mapping[str, Contrast]]
) -> list[str]:
    """Return a note for each metric some of whose cells rest on the stages of others."""
    notes = []
    for metric, cells in differences.items():
        of: dict[str, list[str]] = {}
        for cell, first in copies.get(metric, {}).items():
            of.setdefault(first, []).append(cell)
        own = [cell for cell, c in cells.items() if c.verdict == ONE_RESULT]
        of = {**({base: own} if own else {}), **of}
        # Cells that differ in one setting are named by what they have in common.
        same = [
            f"{some(names)} as {first}" if len(names) < FEW_NAMES else named([first, *names], len(cells) + 1)
            for first, names in of.items()
        ]
        if same:
            notes.append(
                f"{metric}: one result under several names: {'; '.join(same)}. What rests on the same stages is one "
                "contrast, and counts once."
            )
    return notes
