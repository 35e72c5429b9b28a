"""The ledgers of activation's tests serve consent's too: it lives in the same database."""

from cdp_pipeline_tests.activation.conftest import ledger

__all__ = ["ledger"]
