"""Train and evaluate the preset `small` and torchvision's RetinaNet on BCCD with equal settings.

Requires the BCCD dataset in ../shared/data. Takes about an hour on two cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
EPOCHS = 12


def main() -> None:
    """Run both trainings one after the other, print their results as one table, and write the table."""
    sys.path.insert(0, str(HERE))
    from torchvision_retinanet import SHARED

    if not (SHARED / "bccd").exists():
        print(f"bccd: skipped: expected the BCCD dataset in {SHARED / 'bccd'}, found no such folder")
        return
    RESULTS.mkdir(exist_ok=True)
    rows = []
    for name, script in (("retinanet `small`", "bccd_retinanet.py"), ("torchvision", "torchvision_retinanet.py")):
        out = RESULTS / f"{Path(script).stem}.json"
        command = [sys.executable, str(HERE / script), "--epochs", str(EPOCHS), "--out", str(out)]
        subprocess.run(command, check=True)
        rows.append((name, json.loads(out.read_text())))
    classes = sorted(rows[0][1]["per_class"])
    lines = [
        f"BCCD, trained on train, evaluated on test; {EPOCHS} epochs, batch 4, 512 x 384, equal ImageNet weights.",
        f"{rows[0][1]['cpu']}, torch {rows[0][1]['versions']['torch']}.",
        "",
        "| | AP | AP50 | AP75 | " + " | ".join(f"{name} AP50" for name in classes) + " | training, s |",
        "|---|---|---|---|" + "---|" * (len(classes) + 1),
    ]
    for name, report in rows:
        numbers = [report["metrics"][key] for key in ("AP", "AP50", "AP75")]
        numbers += [report["per_class"][key]["AP50"] for key in classes]
        cells = " | ".join(f"{number:.3f}" for number in numbers)
        lines.append(f"| {name} | {cells} | {report['train_seconds']:.0f} |")
    table = "\n".join(lines) + "\n"
    (RESULTS / "bccd.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
