"""Draws docs/images/performance.svg from the peers.json that was measured last.

    python -m benchmarks.chart            writes the chart
    python -m benchmarks.chart --check    exits 1 if the chart is out of date

Owns: the chart of throughput against peers. The same results always give the same bytes.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.machines import machines
from benchmarks.recorded import RESULTS, Peer, Peers
from worker.core.counted import counted

CHART: Final = Path(__file__).parents[1] / "docs" / "images" / "performance.svg"

_WIDTH: Final = 760
_MARGIN: Final = 24
_BARS_X: Final = 322
_NAMES_X: Final = _BARS_X - 12  # the names end here
_LONGEST_BAR: Final = 240
_BAR_HEIGHT: Final = 20
_ROW_HEIGHT: Final = 34
_HEAD_HEIGHT: Final = 74
_FOOT_HEIGHT: Final = 58

# The card has a background of its own: it is readable on a page of any colour, also where the
# page's theme and the system's preference differ.
_STYLE: Final = """
  text { font: 14px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
  .card { fill: #ffffff; stroke: #d0d7de }
  .title { font-size: 16px; font-weight: 600 }
  .name { font-size: 13px; text-anchor: end }
  .title, .name, .value { fill: #1f2328 }
  .ours { font-weight: 600 }
  .small { font-size: 12px; fill: #59636e }
  .bar { fill: #a3adb8 }
  .bar.ours { fill: #0b7a75 }
  @media (prefers-color-scheme: dark) {
    .card { fill: #151b23; stroke: #3d444d }
    .title, .name, .value { fill: #f0f6fc }
    .small { fill: #9198a1 }
    .bar { fill: #656c76 }
    .bar.ours { fill: #2bb3ab }
  }
"""


def svg(peers: Peers) -> str:
    """Return the chart: a bar for each program that finished, the fastest first."""
    bars = sorted(
        ((peer, peer.records_per_s) for peer in peers.peers if peer.records_per_s),
        key=lambda bar: -bar[1],
    )
    height = _HEAD_HEIGHT + _ROW_HEIGHT * len(bars) + _FOOT_HEIGHT
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img">'
    )
    alternative = "; ".join(f"{_name(peer)} {rate:.1f}" for peer, rate in bars)
    lines = [
        head,
        f"<title>{escape(f'Records a second: {alternative}')}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>',
        _text(_MARGIN, 32, "title", "Throughput, end to end through Kafka"),
        _text(_MARGIN, 51, "small", "records/s, higher is better; same model, texts and machine"),
        *_rows(peers, bars),
        *(
            _text(_MARGIN, height - 33 + 18 * number, "small", caption)
            for number, caption in enumerate(_captions(peers))
        ),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _rows(peers: Peers, bars: Sequence[tuple[Peer, float]]) -> Iterator[str]:
    fastest = max((rate for _, rate in bars), default=1.0)
    ours = peers.peers[0].records_per_s
    for number, (peer, rate) in enumerate(bars):
        top = _HEAD_HEIGHT + _ROW_HEIGHT * number
        style = " ours" if peer is peers.peers[0] else ""
        length = round(_LONGEST_BAR * rate / fastest, 1)
        value = f"{rate:.1f}"
        if ours and not style:
            value += f"  (streamlabel: {ours / rate:.1f} x)"
        yield _text(_NAMES_X, top + 15, f"name{style}", _name(peer))
        yield (
            f'<rect class="bar{style}" x="{_BARS_X}" y="{top}" width="{length}" '
            f'height="{_BAR_HEIGHT}" rx="3"/>'
        )
        yield _text(_BARS_X + length + 8, top + 15, f"value{style}", value)


def _name(peer: Peer) -> str:
    return peer.name.replace("`", "")


def _captions(peers: Peers) -> list[str]:
    features = f" ({', '.join(peers.features)})" if peers.features else ""
    size = f"median of {counted(peers.rounds, 'run')} over {peers.backlog}"
    threads = counted(peers.threads, "thread")
    when = f"; {peers.date}" if peers.date else ""
    return [
        f"{peers.cpu}, {counted(peers.cores, 'core')}{features}; {peers.broker} on the same machine",
        f"{peers.model}, torch {peers.torch}, {threads}; {size}{when}",
    ]


def latest(results: Path = RESULTS) -> Peers | None:
    """Return the peers that were measured last, on the fastest machine of that day."""
    found = [machine.peers for machine in machines(results) if machine.peers]
    return max(found, key=lambda peers: (peers.date, peers.peers[0].records_per_s), default=None)


def _text(x: float, y: int, style: str, content: str) -> str:
    return f'<text class="{style}" x="{x:g}" y="{y}">{escape(content)}</text>'


def main(
    arguments: Sequence[str] | None = None, chart: Path = CHART, folder: Path = RESULTS
) -> int:
    """Write the chart, or with `--check` return 1 if it is out of date."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on drift")
    check = parser.parse_args(arguments).check
    peers = latest(folder)
    if peers is None:
        print(
            f"chart: {folder} has no peers.json: run python -m benchmarks.peers.run",
            file=sys.stderr,
        )
        return 1
    drawn = svg(peers)
    if check:
        current = chart.is_file() and chart.read_text(encoding="utf-8") == drawn
        if not current:
            print(f"{chart.name} is stale: run python -m benchmarks.chart", file=sys.stderr)
        return int(not current)
    chart.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
