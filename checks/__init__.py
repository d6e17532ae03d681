"""What is asked of an embedding model before it is relied on: loading, quality, convergence, latency."""

from checks.convergence import check_convergence
from checks.latency import check_latency
from checks.limits import Limits
from checks.loading import check_loading
from checks.quality import check_quality
from checks.suite import PARTS, Part, Subject, carry_out
from checks.verdict import Figure, Verdict
from checks.verdict_report import as_json, as_text

__all__ = [
    "PARTS",
    "Figure",
    "Limits",
    "Part",
    "Subject",
    "Verdict",
    "as_json",
    "as_text",
    "carry_out",
    "check_convergence",
    "check_latency",
    "check_loading",
    "check_quality",
]
