"""Checks the TLS files before a client is made.

Owns: nothing.
Thread: any; opens no connection.
Must not import: inference, runtime.

The library loads the files for each connection.
"""

from __future__ import annotations

import ssl

from worker.settings import KafkaSettings
from worker.tls import load_files


def check_files(kafka: KafkaSettings) -> None:
    """Return if certificates and key can be loaded and belong together.

    Raises:
        SettingsError: names the setting, the file and the fault.
    """
    load_files(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), kafka, "kafka")
