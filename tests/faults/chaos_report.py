"""What to print of a run: figures, and the history around the first violation of each kind."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from tests.faults.delivery_check import Check, Kind, Record, Violation
from tests.faults.mesh import NAMES

BEFORE, AFTER = 12, 8  # lines of a client's history
FAULTS_BEFORE, FAULTS_AFTER = 10.0, 3.0  # seconds
MAX_RUN = 12  # messages that are shown of those that came one after the other
MESSAGE = re.compile(r"p\d+-\d+")


class Report:
    """Describes violations. Times are seconds since the first publication."""

    def __init__(self, check: Check, records: Sequence[Record], faults: Sequence[tuple[float, str]]) -> None:
        self._check = check
        self._records = {record.client: record for record in records}
        self._faults = faults
        self._start = min((each.began for each in check.published.values()), default=0.0)

    def describe(self, violations: Sequence[Violation]) -> str:
        """Return a summary, and the context of the first violation of each kind."""
        published, lost = self._check.published.values(), self._check.lost()
        missed = self._check.missed_of_lost(self._records.values())
        lines = [
            f"{len(published)} messages, {sum(not each.receipts for each in published)} without receipt;"
            f" {len(lost)} may be lost with their node, {len(missed)} were missed"
        ]
        for kind in Kind:
            found = [each for each in violations if each.kind is kind]
            if found:
                clients = Counter(each.client for each in found)
                lines.append(f"--- {kind.value}: {len(found)} times, at {len(clients)} clients; first:")
                lines += self._context(found[0])
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """Write all that the clients sent and received."""
        for record in self._records.values():
            name = re.sub(r"\W+", "-", record.client)
            lines = [f"{self._time(at)} {node} {what}" for at, node, what in record.events]
            (folder / f"{name}.txt").write_text("\n".join(lines))

    def _context(self, first: Violation) -> Iterator[str]:
        record = self._records[first.client]
        yield f"{self._time(first.at)} {first.what}"
        at = first.at
        if first.name:
            yield from self._path(first.name)
            at = self._check.published[first.name].began if at == math.inf else at
        yield f"{record.client}, {record.instance} {sorted(record.channels)}:"
        lines = list(self._runs(record.events))
        place = next((place for place, (time, _) in enumerate(lines) if time > at), len(lines))
        yield from (f"  {line}" for _, line in lines[max(0, place - BEFORE) : place + AFTER])
        for time, what in self._faults:
            if at - FAULTS_BEFORE < time < at + FAULTS_AFTER:
                yield f"  fault {self._time(time)} {what}"

    def _path(self, name: str) -> Iterator[str]:
        """Where a message has been."""
        publication = self._check.published[name]
        yield f"{name}: POST at {self._time(publication.began)}, {sorted(publication.channels)}"
        for node, _, at in publication.receipts:
            yield f"  acknowledged by {node.name} at {self._time(at)}"
        for (sender, receiver), link in self._check.mesh.links.items():
            if name in link.passed:
                yield f"  passed {NAMES[sender]}-{NAMES[receiver]} at {self._time(link.passed[name])}"

    def _runs(self, events: Iterable[tuple[float, str, str]]) -> Iterator[tuple[float, str]]:
        """One line for messages that came one after the other."""
        for _, group in groupby(events, key=lambda event: MESSAGE.fullmatch(event[2]) is None and event):
            run = [*group]
            at, node, _ = run[0]
            names = [what for _, _, what in run]
            if len(names) > MAX_RUN:
                names[MAX_RUN // 2 : -MAX_RUN // 2] = [f"... {len(names) - MAX_RUN} more ..."]
            yield run[-1][0], f"{self._time(at)} {node} {' '.join(names)}"

    def _time(self, at: float) -> str:
        return "at the end" if at == math.inf else f"{at - self._start:.3f}"
