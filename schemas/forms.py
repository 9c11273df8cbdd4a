"""The forms of a result: which model describes it, and which member of an enriched record holds it.

Owns: the list of forms.
Thread: any; pure.
Must not import: worker; anything but pydantic.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pydantic import BaseModel

from schemas.classification import Classification
from schemas.classifications import Classifications
from schemas.decided import DecidedClassification


class ResultForm(NamedTuple):
    """One form of a result.

    Attributes:
        name: of its schemas' files.
        model: describes it.
        member: of an enriched record.
    """

    name: str
    model: type[BaseModel]
    member: str = "classification"


PLAIN: Final = ResultForm("classification", Classification)
DECIDED: Final = ResultForm("decided_classification", DecidedClassification)
SEVERAL: Final = ResultForm("classifications", Classifications)
FORMS: Final = (PLAIN, DECIDED, SEVERAL)
