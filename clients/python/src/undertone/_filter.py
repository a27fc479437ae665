"""Which escalations are wanted, as the protocol has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypedDict

from ._generated.undertone.v1 import escalation_service_pb2
from ._wire import set_moment
from .escalations import EscalationState, Severity


class EscalationFilter(TypedDict, total=False):
    """The keywords of `escalations` and `watch_escalations`: all that is given must hold."""

    states: Sequence[EscalationState]
    """Any of these states; of a watch, those after the event."""
    min_severity: Severity | None
    """At least this severity."""
    policies: Sequence[str]
    """Any of these policies, 64 at most."""
    session_id: str | None
    """Of this session."""
    labels: Mapping[str, str]
    """With all of these labels, 32 at most."""
    raised_since: datetime | None
    """Raised then or later."""
    raised_before: datetime | None
    """Raised before that."""
    tenant: str | None
    """Of this tenant; of all that the caller sees, if not given."""


def build(
    *,
    states: Sequence[EscalationState] = (),
    min_severity: Severity | None = None,
    policies: Sequence[str] = (),
    session_id: str | None = None,
    labels: Mapping[str, str] | None = None,
    raised_since: datetime | None = None,
    raised_before: datetime | None = None,
    tenant: str | None = None,
) -> escalation_service_pb2.EscalationFilter:
    """The protocol's filter."""
    wanted = escalation_service_pb2.EscalationFilter(
        min_severity=min_severity and f"SEVERITY_{min_severity.name}",
        states=[f"ESCALATION_STATE_{state.name}" for state in states],
        policies=policies,
        session_id=session_id,
        labels=labels,
        tenant=tenant,
    )
    if raised_since is not None:
        set_moment(wanted.raised_since, raised_since)
    if raised_before is not None:
        set_moment(wanted.raised_before, raised_before)
    return wanted
