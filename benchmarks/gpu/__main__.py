"""Measures engine, tokeniser and whole path on one GPU, and prints one JSON object.

    python -m benchmarks.gpu --json benchmarks/results/gpu.json
    python -m benchmarks.gpu --dry-run          tiny sizes, for a machine without a GPU

Needs torch with CUDA and the packages of `streamlabel[demo]`, except the bundled model. It needs no
network: the models have random weights. A part that fails has its error in place of figures, and
the exit code is 1.

Owns: the order of the parts.
Thread: main.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.gpu import end_to_end, engine, feeding
from benchmarks.gpu.sizes import FULL, TINY, Sizes
from worker.bench.machine import processor
from worker.limits import cores
from worker.logs import configure

_PARTS: Final[dict[str, Callable[[Sizes, Path], Any]]] = {
    "engine": engine.measure,
    "variants": engine.variants,
    "tokeniser": feeding.measure,
    "end_to_end": end_to_end.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen parts and print their figures."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny sizes, to check that every part runs"
    )
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=list(_PARTS), metavar="PART")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args(arguments)
    configure("warning", "plain")
    sizes = TINY if args.dry_run else FULL
    if not args.dry_run and not torch.cuda.is_available():
        print("benchmarks.gpu: torch finds no GPU; use --dry-run without one", file=sys.stderr)
        return 2
    figures: dict[str, Any] = {"dry_run": args.dry_run, "machine": _machine()}
    failed = False
    with tempfile.TemporaryDirectory(prefix="streamlabel-gpu-") as folder:
        for part in args.only:
            print(f"gpu: {part}", file=sys.stderr, flush=True)
            try:
                figures[part] = _PARTS[part](sizes, Path(folder))
            except Exception as error:  # noqa: BLE001 - GPU time is scarce: measure the other parts
                traceback.print_exc()
                figures[part], failed = {"error": f"{type(error).__name__}: {error}"}, True
            if args.json:
                args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures))
    return int(failed)


def _machine() -> dict[str, Any]:
    cpu, features = processor()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    versions = {name: version(name) for name in ("torch", "transformers", "tokenizers")}
    return {"gpu": gpu, "cpu": cpu, "features": features, "cores": cores()} | versions


if __name__ == "__main__":
    sys.exit(main())
