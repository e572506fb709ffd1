"""`retinanet export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from retinanet.commands.options import Flags
from retinanet.config import ExportConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from retinanet.export.exporter import Comparison
    from retinanet.export.parity import Difference


def export(
    model: Annotated[Path, Parameter(help="Checkpoint to export.")], *, options: Flags[ExportConfig] | None = None
) -> None:
    """Export a checkpoint to ONNX, OpenVINO or torch.export, and compare the export with it on real images.

    `retinanet export runs/first/best.ckpt -o m.onnx`
    `retinanet export runs/first/best.ckpt -o m.xml --int8 --calibrate data/train.json --data data/val.json`
    """
    from rich.console import Console

    from retinanet.analysis.next_steps import serve_model
    from retinanet.commands.terminal import print_next_steps, progress_bar
    from retinanet.export.exporter import ExportMismatchError
    from retinanet.export.exporter import export as export_model
    from retinanet.predict.loading import EXPORTED

    console = Console()
    try:
        done = export_model(model, options or ExportConfig(), progress=progress_bar)
    except ExportMismatchError as error:
        _print_comparison(console, error.comparison)
        raise
    _print_comparison(console, done.comparison)
    console.print(f"written: {done.path} ({done.size / 1e6:.1f} MB)", markup=False, highlight=False, soft_wrap=True)
    if done.triton_config is not None:
        console.print(f"written: {done.triton_config}", markup=False, highlight=False, soft_wrap=True)
    elif done.path.suffix in EXPORTED and not (options and options.raw):
        print_next_steps([serve_model(done.path, "Serve the exported model, without torch")])


def _print_comparison(console: Console, comparison: Comparison) -> None:
    console.print(parity_table(comparison.differences, comparison.title))
    if comparison.ap:
        console.print(
            f"AP on {comparison.ap_images:,} images: checkpoint {comparison.ap['checkpoint']:.4f}, "
            f"export {comparison.ap['export']:.4f}",
            markup=False,
            highlight=False,
        )


def parity_table(differences: Sequence[Difference], what: str) -> Table:
    """Return a table for the terminal: the differences between export and checkpoint at each image and batch size."""
    from rich.table import Table

    out = Table(title=f"{what} against the checkpoint")
    columns = ("size", "batch", "images", "compared", "box, px", "score", "missing", "at a threshold")
    for name in columns:
        out.add_column(name, justify="right")
    for d in differences:
        numbers = [d.image_size, d.batch_size, d.images, d.compared]
        out.add_row(*map(str, numbers), f"{d.boxes:.1e}", f"{d.scores:.1e}", str(d.missing), str(d.at_threshold))
    return out
