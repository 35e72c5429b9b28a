"""The gates every delivery passes at the moment it is sent, in order; each refusal is kept with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from cdp_pipeline.activation.ledger import Claimed
from cdp_pipeline.activation.protocol import Outcome
from cdp_pipeline.spec.destination import Destination


class Gates(Protocol):
    """Who may be sent what at this instant."""

    def refusals(self, claimed: Sequence[Claimed], destination: Destination, now: datetime) -> dict[str, Outcome]:
        """By op_id the operations that must not be sent now: 'suppressed', or 'waits' with how long.

        What takes somebody out of a destination ('remove', 'left') always passes.
        """
