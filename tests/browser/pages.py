"""Reports that browsers are shown: verdicts, and records that would like to run something."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.claims.model import Finding, Verdict
from bench.record import Record, Status
from bench.report import Report, build
from tests import synthetic

#: Sets a flag of the window where it is taken for markup, in whichever way.
ATTACK = (
    "</script></style></title><script>window.attacked=1</script>"
    "<img src=x onerror=window.attacked=1><svg onload=window.attacked=1>"
    "<!--<script>]]>\u2028\u2029 ${window.attacked=1} {{ 7 * 7 }} '\"`&lt;"
)


def verdicts(text: str = "", url: str = "https://example.org/claim") -> list[Verdict]:
    """Two claims of two hosts, one of them without any data."""
    finding = Finding(
        run="drawn",
        where={"framework": f"torch{text}", "T": "50", "phase": "train"},
        answer="refuted",
        reason=f"shown{text}",
        effect=0.8,
        low=0.78,
        high=0.83,
        p=0.0001,
        adjusted_p=0.0004,
        blocks=10,
        rows=("torch/traced", "torch/dynamic"),
        arithmetic=(f"0.8 is below 1{text}",),
    )
    verdict = Verdict(
        id=f"dynamic{text}",
        sentence=f"The dynamic one is as fast.{text}",
        source=f"a page{text}",
        url=url,
        hypothesis=f"at most 5 % slower{text}",
        scope=f"LSTM{text}",
        answer="refuted",
        reason=f"at T=50{text}",
        region={"refuted": f"T=50{text}"},
        findings=[finding, replace(finding, where={**finding.where, "T": "10"}, answer="holds")],
        deciding=finding,
        host=f"here{text}",
        notes=(f"a note{text}",),
    )
    nothing = replace(
        verdict,
        id="memory",
        sentence="It needs less memory.",
        answer="no data",
        findings=[],
        deciding=None,
    )
    return [verdict, replace(verdict, answer="holds", host="there"), nothing]


def hostile_report() -> Report:
    """Every text that comes from outside is an attack, and each source an address of script.

    What names a case is not: no case can be made, or read, with a word that is none of its own.
    """

    def attacked(record: Record) -> Record:
        job = record.job
        if job.implementation == "jax/static":
            return replace(record, status=Status.CRASHED, reason=ATTACK, samples={}, values={})
        if job.implementation == "torch/traced":
            job = replace(job, implementation=f"torch/{ATTACK}")
        return replace(record, job=job)

    host: dict[str, Any] = {"hostname": ATTACK, "cpu": ATTACK, "system": ATTACK}
    run = synthetic.run(
        synthetic.sweep(blocks=2),
        change=attacked,
        id=ATTACK,
        command=ATTACK,
        host=host,
        versions={"torch": ATTACK},
        sweep={"title": ATTACK},
    )
    other = replace(run, manifest={**run.manifest, "id": "other"}, faults=[ATTACK] * 9)
    report = build([run, other])
    return replace(report, verdicts=verdicts(ATTACK, "javascript:window.attacked=1"))
