"""Where a faulty service is told its faults: apart from it, as importing it changes serving."""

from __future__ import annotations

FAULTS_FILE = "faults.json"
SLEEP_S = 5.0
