"""The options of a second model that is compared with the first: a shadow.

Owns: `[shadow]`.
Thread: any; the values are frozen.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from pydantic import Field

from worker.settings.sections import ModelOptions, TopicName
from worker.settings.table import Pairs, Table

_DEFAULT_COST = 2  # times `share`: an equal model costs half of it


class ShadowSettings(ModelOptions):
    """A second model that sees a share of the texts, and is compared with the first."""

    name: str = Field(
        "",
        description="Second model: a Hugging Face Hub id, a directory, or `bundled`. It sees a share "
        "of the texts after the first model, and is compared with it. Empty: none.",
    )
    share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the records that the second model sees. A hash of topic, partition and "
        "offset chooses them. 0 turns the comparison off.",
    )
    max_cost: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Maximum time of the second model as a share of the first one's, while records "
        "wait. Texts beyond it are skipped and counted. Default: twice `shadow.share`.",
    )
    labels: Table = Field(
        Pairs(),
        description="Names of the second model's labels -> the first one's, where they differ. A "
        "table of strings, or `theirs=ours` pairs, comma-separated. Names that differ in case alone "
        "need no entry.",
    )
    topic: TopicName | None = Field(
        None,
        description="Topic for the second model's results, as JSON. Best effort: a result may be "
        "missing or repeated. It must exist. Default: they are not published.",
    )

    @property
    def is_on(self) -> bool:
        """True if a second model is to be loaded."""
        return bool(self.name and self.share)

    @property
    def cost(self) -> float:
        """Seconds that the second model may take for each second of the first."""
        return self.max_cost or _DEFAULT_COST * self.share
