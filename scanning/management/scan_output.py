"""How a scan by hand went, in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scanning.core.scan_warnings import EXPLAINED
from scanning.core.texts import printable
from scanning.core.verify import Fault
from scanning.runtime.manual_scan import VerificationResult

if TYPE_CHECKING:
    from scanning.core.types import ScanCounts, ScanResult
    from scanning.core.verify import Findings
    from scanning.runtime.manual_scan import Result

_FAULTS = {
    Fault.LOST: "segments lost or broken",
    Fault.ENTRY: "segments described wrongly",
    Fault.HIDDEN: "rows hidden by a digest",
    Fault.DIGEST: "digests that do not fit their rows",
    Fault.STRING: "documented states missing or wrong",
    Fault.COUNT: "the number of objects noted wrongly",
}


def line_of(result: Result) -> str:
    if isinstance(result, VerificationResult):
        return _of_verified(result)
    return _of_scan(result)


def _of_scan(result: ScanResult) -> str:
    if not result.ok:
        return f"{result.bucket}: FAILED after {result.duration_s:.2f} s: {result.error}"
    line = f"{result.bucket}: {_counted(result.counts)}, {result.duration_s:.2f} s"
    for warning in result.warnings:
        examples = ", ".join(warning.examples)
        line += f"; {warning.count} {EXPLAINED[warning.kind].meaning} ({examples})"
    if result.held is None:
        return line
    return f"{line}; {result.held.missing} missing, held until somebody confirms the deletion"


def _of_verified(verified: VerificationResult) -> str:
    result, findings = verified.result, verified.findings
    if verified.is_repaired:
        return f"{_of_scan(result)}; {_found(findings, 'repaired')}"
    if not result.ok:
        return f"{_of_scan(result)}; {_found(findings, 'found')}"
    return (
        f"{result.bucket}: {findings.segments} segments compared with {_counted(result.counts)}, "
        f"{result.duration_s:.2f} s; {_found(findings, 'found')}"
    )


def _counted(counts: ScanCounts) -> str:
    return (
        f"{counts.objects} objects, {counts.created} created, {counts.updated} updated, "
        f"{counts.detected} detected, {counts.deleted} deleted"
    )


def _found(findings: Findings, verb: str) -> str:
    if not findings.wrong:
        return "nothing is wrong"
    kinds = [
        f"{number} {_FAULTS[fault]}{_examples(findings.examples[fault])}"
        for fault, number in findings.wrong.items()
    ]
    return f"{verb}: {', '.join(kinds)}"


def _examples(keys: list[str]) -> str:
    return f" ({', '.join(map(printable, keys))})" if keys else ""
