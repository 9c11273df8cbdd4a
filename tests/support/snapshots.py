"""Snapshots of workers: 28 labels, a pool with a dead worker, half an hour after a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

Json = dict[str, Any]

NOW: Final = 1_795_791_600_000  # ms; the snapshots' own clock, so that pictures repeat
STAGES: Final = ("queue", "tokenise", "infer", "publish", "commit")
BOUNDS: Final = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
RANGES: Final = {"5m": (300, 1), "1h": (360, 10), "24h": (1440, 60)}  # points, seconds between them
# The labels of go_emotions: https://huggingface.co/datasets/google-research-datasets/go_emotions
EMOTIONS: Final = [
    "admiration",
    "amusement",
    "anger",
    "annoyance",
    "approval",
    "caring",
    "confusion",
    "curiosity",
    "desire",
    "disappointment",
    "disapproval",
    "disgust",
    "embarrassment",
    "excitement",
    "fear",
    "gratitude",
    "grief",
    "joy",
    "love",
    "nervousness",
    "optimism",
    "pride",
    "realization",
    "relief",
    "remorse",
    "sadness",
    "surprise",
    "neutral",
]
POSTS: Final = (
    ("My sister's baby is here! Tiny, loud and perfect 🥹🎉", 0.97),
    ("worst headset I ever bought, broke after two days, refund refused 😡", 0.03),
    ("Not gonna lie, I'm proud of how this drawing turned out ✨", 0.92),
    ("the hotel room smelled of smoke and the wifi never worked", 0.06),
    ("laughed so hard at this I nearly dropped my phone 😂", 0.34),
    ("next stop is Harbour Street, doors open on the left", 0.53),
    ("مباراة رائعة اليوم ⚽ كل شيء كان جميلا", 0.88),
    ("Finally ran 10k without stopping, feeling fantastic! 🏃", 0.97),
)


def labels_of(names: Sequence[str], total: int) -> dict[str, int]:
    """Return a total for each label, the first one the largest."""
    weights = [1 / (n + 1) for n in range(len(names))]
    return {
        name: round(total * weight / sum(weights))
        for name, weight in zip(names, weights, strict=True)
    }


class Told:
    """A worker that tells of itself. Tests change the members of `snapshot`.

    Args:
        names: the model's labels.
        rate: texts labelled a second; 0 is a worker without traffic.
        idle: seconds since the last record.
        ran: seconds since the start.
    """

    def __init__(
        self,
        names: Sequence[str] = ("POSITIVE", "NEGATIVE"),
        rate: float = 900,
        idle: float = 0,
        ran: float = 100_000,
    ) -> None:
        self.names, self.rate, self.idle, self.ran = names, rate, idle, ran
        self.snapshot = snapshot(labels_of(names, 412_345), rate)
        self.snapshot["point"] = self._point(0, 300)
        minute = [self._point(59 - n, 300)["labelled"] for n in range(60)]
        self.snapshot["minute"] = minute
        if idle:
            self.snapshot["last_at"] = NOW - idle * 1000
            self.snapshot["rates"] = dict.fromkeys(("arriving", "labelled", "dead_letters"), 0)
            self.snapshot["lag"] = lag([0] * 6)

    def history(self, range_: str) -> Json:
        """Return the answer to GET /history."""
        number, step = RANGES[range_]
        number = min(number, round(self.ran / step))
        points = [self._point((number - 1 - n) * step, 300 * step) for n in range(number)]
        return {"range": range_, "step_s": step, "points": points}

    def _point(self, age: float, span: float) -> Json:
        wave = 1 + 0.25 * math.sin(age / span * 19) + 0.03 * math.sin(age / span * 140)
        labelled = self.rate * wave if age >= self.idle else 0.0
        totals = labels_of(self.names, 1_000_000)
        shown = dict(sorted(totals.items(), key=lambda pair: -pair[1])[:12])
        busy = age >= self.idle and bool(self.rate)
        return {
            "at": NOW - round(age * 1000),
            "arriving": labelled * (1 + 0.12 * math.sin(age / span * 31)),
            "labelled": labelled,
            "labels": {name: labelled * total / 1e6 for name, total in shown.items()},
            "others": labelled * (1 - sum(shown.values()) / sum(totals.values())),
            "latency": {
                "p50": 0.036 * wave if busy else None,
                "p95": 0.083 * wave if busy else None,
                "p99": 0.097 * wave**2 if busy else None,
            },
            "lag": round(1500 * wave) if busy else 0,
            "dead_letters": 0.2 if busy else 0,
        }


def lag(records: Sequence[int], *, topic: str = "texts.in") -> Json:
    """Return the lag of partitions 0, 1, ... in records."""
    return {
        "records": sum(records),
        "seconds": 0.025,
        "until_zero_s": 134 if sum(records) else None,
        "trend": "shrinking" if sum(records) else "none",
        "partitions": [
            {"topic": topic, "partition": n, "records": value} for n, value in enumerate(records)
        ],
        "left_out": 0,
    }


def dead_letter(number: int, **members: object) -> Json:
    """Return one of the last dead letters."""
    return {
        "at": NOW - 7_000 * (number + 1),
        "topic": "texts.in",
        "partition": number % 6,
        "offset": 48_211 + 17 * number,
        "reason": ("not_json", "path_missing", "empty_text")[number % 3],
        "message": "Expecting value: line 1 column 1 (char 0)",
        "stack_hash": f"9f2c41d{number}",
        "bytes": 52 + number,
    } | members


def dead_letters(latest: Sequence[Json]) -> Json:
    """Return the member of a snapshot that has these newest dead letters."""
    return {
        "by_reason": {"not_json": 4, "path_missing": 3, "empty_text": 2},
        "rate": 0.2,
        "latest": list(latest),
        "command": "streamlabel dead-letters replay --bootstrap-servers broker-1.example:9092 "
        "--topic texts.in",
        "command_needs": ["STREAMLABEL_KAFKA_SASL_PASSWORD"],
    }


def posts(names: Sequence[str]) -> list[Json]:
    """Return the last posts, each with its scores."""
    shown = []
    for number, (text, score) in enumerate(POSTS):
        scores = [(names[0], score), (names[1], round(1 - score, 2))]
        if len(names) > 2:
            first = (number * 5) % (len(names) - 4)
            scores = list(zip(names[first:], (score * 0.7, 0.11, 0.06, 0.02), strict=False))
        ranked = sorted(scores, key=lambda pair: -pair[1])
        one = {"id": f"texts.in/{number % 6}/{number}", "at": NOW, "characters": len(text)}
        shown.append(one | {"text": text, "scores": ranked})
    return shown


def confidence(shares: Mapping[float, float], total: int) -> list[list[float]]:
    """Return buckets with both bounds; `shares` has those that are not empty, by lower bound."""
    pairs = pairwise(BOUNDS)
    return [[low, high, round(total * shares.get(low, 0))] for low, high in pairs]


def identity() -> Json:
    """Return the identity of one worker."""
    return {
        "inputs": ["texts.in"],
        "pattern": None,
        "output": "texts.labelled",
        "dead_letters": "texts.dead",
        "group": "sentiment",
        "brokers": ["broker-1.example:9092", "broker-2.example:9092", "broker-3.example:9092"],
        "host": "labeller-7d4f9",
        "pid": 12,
        "started_at": NOW - 11_640_000,
        "delivery": "at_least_once",
        "processes": 1,
        "mode": "classification",
        "cluster_name": None,
    }


def settings() -> list[Json]:
    """Return settings in force, a few of them changed."""
    file = "file streamlabel.toml"
    changed = [
        ("kafka.bootstrap_servers", "broker-1.example:9092,broker-2.example:9092", file),
        ("kafka.sasl_password", "(hidden)", "environment STREAMLABEL_KAFKA_SASL_PASSWORD"),
        ("input.topic", ["texts.in"], file),
        ("http.show_texts", True, "flag --http-show-texts"),
    ]
    left = [(f"batching.option_{n}", n, "default") for n in range(60)]
    names = ("name", "value", "origin")
    return [dict(zip(names, one, strict=True)) for one in [*changed, *left]]


def models() -> list[Json]:
    """Return two models, the first replaced by the second."""
    offsets = {f"texts.in/{n}": 4_000 + 31 * n for n in range(6)}
    return [
        {
            "name": name,
            "revision": revision,
            "weights_sha256": sha * 8,
            "since": NOW - age,
            "first_offsets": offsets,
        }
        for name, revision, sha, age in (
            ("cardiffnlp/twitter-roberta", "3216a57f2a0d", "5c0e19a7", 11_600_000),
            ("bundled", "none", "77ab01fe", 1_800_000),
        )
    ]


def shadow() -> Json:
    """Return a shadow model that differs in a few texts."""
    flips = (("POSITIVE", "NEGATIVE", 212), ("NEGATIVE", "POSITIVE", 94))
    return {
        "model": "sentiment-next",
        "share": 0.1,
        "texts": 41_230,
        "agreement": 1 - 306 / 41_230,
        "flips": [{"from": old, "to": new, "number": number} for old, new, number in flips],
        "agreed": 41_230 - 306,
        "interval": [0.991, 0.9935],
        "against": "bundled",
        "state": "comparing",
        "divergence": {"mean": 0.012, "p50": 0.004, "p90": 0.03, "p99": 0.21},
        "latency": {"shadow_ms": 8.1, "model_ms": 5.2},
        "behind": 0,
    }


def snapshot(labels: Mapping[str, int], rate: float) -> Json:
    """Return the snapshot of a busy worker with one process."""
    published = sum(labels.values())
    names = list(labels)
    binary = {0.5: 0.08, 0.6: 0.06, 0.7: 0.05, 0.8: 0.11, 0.9: 0.15, 0.95: 0.33, 0.99: 0.22}
    many = {0.1: 0.06, 0.2: 0.13, 0.3: 0.14, 0.4: 0.15, 0.5: 0.16, 0.6: 0.12, 0.7: 0.1, 0.8: 0.1}
    many |= {0.9: 0.03, 0.95: 0.01}
    return {
        "at": NOW,
        "identity": identity(),
        "worker": {
            "version": "0.2.0",
            "model": {
                "model": "bundled",
                "revision": "none",
                "engine": "packed",
                "dtype": "bfloat16",
                "device": "cpu",
            },
            "states": ["running"],
            "live": True,
            "ready": True,
            "reason": "running",
            "classify": True,
        },
        "totals": {
            "consumed": published + 9,
            "published": published,
            "dead_lettered": 9,
            "in_flight": 64,
            "in_flight_bytes": 9_200,
            "truncated": 12,
            "cached": 3_921,
            "restarts": 0,
        },
        "rates": {"arriving": rate * 1.08, "labelled": rate, "dead_letters": 0.2},
        "labels": dict(sorted(labels.items())),
        "others": {"labels": 0, "total": 0},
        "latency": {"p50": 0.036, "p95": 0.083, "p99": 0.097},
        "lag": lag([412, 700, 15, 120, 831, 402]),
        "stages": [
            {"name": name, "seconds": seconds, "busy": busy}
            for name, seconds, busy in zip(
                STAGES,
                (0.001, 0.0007, 0.021, 0.0011, 0.012),
                (None, 0.11, 0.93, 0.08, None),
                strict=True,
            )
        ],
        "shares": {
            "of": "mean time of a micro-batch between poll and acknowledgement, without waits",
            "stages": dict(zip(STAGES, (5.2, 3.1, 87.5, 4.2), strict=False)),
        },
        "workers": [],
        "last_at": NOW,
        "run": {
            "first_at": NOW - 11_600_000,
            "last_at": NOW,
            "busy_s": 458,
            "labelled": 900.3,
            "highest": 1144,
            "latency": {"p50": 0.036, "p95": 0.083, "p99": 0.097},
        },
        "batches": {
            "records": 61.4,
            "tokens": 2310,
            "tokens_at_most": 4096,
            "padding": 0.012,
            "closed_by": {"size": 40, "time": 3, "ready": 812},
        },
        "dead_letters": dead_letters([dead_letter(n) for n in range(6)]),
        "rebalances": {"assigned": 1, "revoked": 0, "lost": 0},
        "drift": [
            {"of": "label", "index": 0.01, "reading": "stable"},
            {"of": "confidence", "index": 0.03, "reading": "stable"},
        ],
        "confidence": confidence(binary if len(names) == 2 else many, published),
        "posts": posts(names),
        "settings": settings(),
        "links": {"docs": "https://docs.example/", "board": "https://board.example/d/1"},
        "models": models(),
        "each_model": [],
        "routes": None,
        "shadow": shadow(),
    }


def with_labels(names: Sequence[str]) -> Told:
    """Tell of a model with these labels."""
    return Told(names)


def of_a_pool(dead: int | None = None, names: Sequence[str] = ("POSITIVE", "NEGATIVE")) -> Told:
    """Tell of a pool of four processes, of which one may have ended."""
    told, slots = Told(names), range(4)
    alive = [slot for slot in slots if slot != dead]
    reason = "ended with exit code 137, starts in 4 s"
    told.snapshot["identity"]["processes"] = len(slots)
    told.snapshot["workers"] = [
        {
            "slot": slot,
            "pid": 40 + slot if slot in alive else None,
            "live": slot in alive,
            "ready": slot in alive,
            "reason": "running" if slot in alive else reason,
        }
        for slot in slots
    ]
    told.snapshot["worker"] |= {
        "states": ["running"] * len(alive),
        "live": dead is None,
        "reason": "4 of 4 ready" if dead is None else f"worker {dead}: {reason}",
    }
    told.snapshot["totals"]["restarts"] = 0 if dead is None else 1
    return told


def each_model() -> list[Json]:
    """Return three models, of which the last applies to some records only."""
    facts = {"engine": "packed", "dtype": "float32", "device": "cpu", "revision": "3216a57f2a0d"}
    mood = labels_of(("POSITIVE", "NEGATIVE"), 412_345)
    toxic = labels_of(
        ("not_toxic", "toxic", "insult", "threat", "obscene", "identity_hate"), 98_211
    )
    language = labels_of(("en", "de", "es", "fr"), 412_345)
    return [
        {
            "name": name,
            "facts": facts | {"model": checkpoint},
            "time": time,
            "busy": {"tokenise": 0.04, "infer": time},
            "labelled": sum(labels.values()),
            "absent": absent,
            "labels": labels,
            "others": {"labels": 0, "total": 0},
        }
        for name, checkpoint, time, labels, absent in (
            ("sentiment", "bundled", 0.12, mood, {}),
            ("language", "papluca/xlm-roberta-base-language-detection", 0.41, language, {}),
            ("toxicity", "unitary/toxic-bert", 0.47, toxic, {"not_applicable": 314_134}),
        )
    ]


def routes() -> Json:
    """Return the member of a worker with routes, of which one copies and one drops."""
    return {
        "main": {"(none)": 301_002, "angry": 81_220},
        "copies": {"toxic-copy": 12_040},
        "filtered": {"route spam": 30_123, "prepare.function": 41},
        "lost": 2,
        "path_missing": 1_204,
    }


def no_route_taken() -> Json:
    """Return the member of a worker with the same routes that has published nothing."""
    counts = {group: routes()[group] for group in ("main", "copies", "filtered")}
    zeros = {group: dict.fromkeys(names, 0) for group, names in counts.items()}
    return zeros | {"lost": 0, "path_missing": 0}


def of_several_models() -> Told:
    """Tell of a worker with three models and routes."""
    told = Told()
    told.snapshot |= {"each_model": each_model(), "routes": routes()}
    for number, post in enumerate(told.snapshot["posts"]):
        absent = {"name": "toxicity", "absent": "not_applicable"}
        toxic = {"name": "toxicity", "scores": [["not_toxic", 0.98], ["toxic", 0.01]]}
        post["parts"] = [
            {"name": "sentiment", "scores": post["scores"]},
            {"name": "language", "scores": [["en", 0.99], ["de", 0.01]]},
            toxic if number % 2 else absent,
        ]
    post = told.snapshot["posts"][5]  # its best label has 53 %
    post["parts"][0]["label"] = "UNCERTAIN"
    post["parts"][2] |= {"label": "not_toxic", "decided": ["not_toxic"]}
    told.snapshot["posts"][2] = {"id": "texts.in/2/2", "at": NOW, "filtered": "route spam"}
    return told


def with_decisions() -> Told:
    """Tell of a model of many labels, each with a threshold."""
    told = Told(EMOTIONS)
    for number, post in enumerate(told.snapshot["posts"]):
        names = [label for label, share in post["scores"] if share > 0.1]
        post |= {"decided": names if number % 3 else [], "label": post["scores"][0][0]}
    return told


def of_no_record() -> Told:
    """Tell of a worker that has just joined and got nothing yet."""
    told = Told(rate=0, idle=400, ran=40)
    told.snapshot["identity"]["started_at"] = NOW - 40_000
    told.snapshot |= {
        "labels": {},
        "last_at": None,
        "run": dict.fromkeys(told.snapshot["run"]) | {"latency": {"p99": None}},
        "latency": dict.fromkeys(("p50", "p95", "p99")),
        "confidence": confidence({}, 0),
        "posts": [],
        "models": [],
        "shadow": None,
        "dead_letters": dead_letters([]) | {"by_reason": {}, "rate": 0},
    }
    for name in told.snapshot["totals"]:
        told.snapshot["totals"][name] = 0
    for stage in told.snapshot["stages"]:
        stage |= {"seconds": None, "busy": 0 if stage["busy"] else None}
    told.snapshot["shares"]["stages"] = {}
    told.snapshot["batches"] = dict.fromkeys(("records", "tokens", "padding")) | {
        "tokens_at_most": 4096,
        "closed_by": {},
    }
    return told


def of_a_run_that_ended() -> Told:
    """Tell of a worker half an hour after its last record."""
    told = Told(idle=1_800)
    told.snapshot["dead_letters"]["rate"] = 0
    told.snapshot["totals"] |= {"in_flight": 0, "in_flight_bytes": 0}
    return told
