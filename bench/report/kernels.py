"""Which kernels each implementation ran, of runs that have it on record."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench import format as fmt
from bench.evidence import Group
from bench.kernels import Ran, read
from bench.report.model import Layout, Table
from bench.report.rows import identity

_CAPTION = """\
What one call ran, by the framework's own profiler: once a run, in its first block, after all that \
is timed there. On a GPU that is kernels and copies, on the CPU the framework's operations \
(PyTorch's also where one calls another, without views and allocations; of XLA the instructions of \
the compiled program; of TensorFlow's functions, as Keras has them, only what its executor does \
not take to be cheap). The library is told by the names: "other" is what none tells. The names \
that took longest come first, each with how often it ran."""

#: A cell names so many kernels, each in so many characters; the CSV has all that were kept.
_NAMED, _WIDTH = 3, 42

UNKNOWN = "not known"


def kernels(groups: Sequence[Group], layout: Layout) -> Table | None:
    """Libraries, numbers and names of kernels; one row an implementation that recorded them."""
    rows, cells = [], []
    for group in groups:
        for name in group.implementations("steady"):
            found = _found(group, name)
            if found is not None:
                rows.append({**identity(group, name), **_row(found)})
                cells.append({**layout.head(group), **_cells(name, found, layout)})
    if not rows:
        return None
    return Table(
        name="kernels",
        title="Which kernels ran",
        caption=_CAPTION,
        frame=pd.DataFrame(rows),
        display=pd.DataFrame(cells),
        heads=layout.heads(),
        words=("implementation", "library", "longest"),
        spare=("names", "longest"),
    )


def _found(group: Group, name: str) -> Ran | str | None:
    """Kernels of the first block that has them on record."""
    believed = group.get(name, "steady").believed
    read_ = (read(record.worker.get("kernels")) for record in believed)
    return next((found for found in read_ if found is not None), None)


def _row(found: Ran | str) -> dict[str, object]:
    if isinstance(found, str):
        return {"library": "", "kernels": None, "names": None, "longest": "", "reason": found}
    return {
        "library": ", ".join(found.libraries),
        "kernels": found.total,
        "names": found.names,
        "longest": "\n".join(f"{times} {name}" for name, times in found.longest),
        "reason": "",
    }


def _cells(name: str, found: Ran | str, layout: Layout) -> dict[str, str]:
    cells = {"implementation": name}
    if isinstance(found, str):
        unknown = f"{UNKNOWN} {layout.footnotes.mark(found)}"
        return cells | {
            "library": unknown,
            **dict.fromkeys(("kernels", "names", "longest"), fmt.NONE),
        }
    named = (
        f"{times:,} {fmt.shortened(kernel.removeprefix('void '), _WIDTH)}"
        for kernel, times in found.longest[:_NAMED]
    )
    return cells | {
        "library": ", ".join(found.libraries),
        "kernels": f"{found.total:,}",
        "names": f"{found.names:,}",
        "longest": ", ".join(named),
    }
