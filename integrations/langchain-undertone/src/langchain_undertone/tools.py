"""Tools for agents: how the person sounds, and which escalations are open."""

from __future__ import annotations

import json
from typing import Any

import undertone
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, BaseToolkit, StructuredTool
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from langchain_undertone.reading import EmotionReading
from langchain_undertone.sources import EmotionSource, SessionEmotions

_ALL_STATES = ("raised", "acknowledged", "cleared")


class EmotionArguments(BaseModel):
    """Arguments of `how_the_user_sounds`."""

    history_seconds: int = Field(
        default=0, ge=0, le=300, description="Seconds of the past to look back at; 0: only how they sound now."
    )


class EscalationsArguments(BaseModel):
    """Arguments of `list_escalations`."""

    open_only: bool = Field(default=True, description="Only those that are in force and nobody has taken on.")
    limit: int = Field(default=10, ge=1, le=50, description="How many at most, the newest first.")


class AcknowledgeArguments(BaseModel):
    """Arguments of `acknowledge_escalation`."""

    escalation_id: str = Field(description="The id, as list_escalations gives it.")
    note: str = Field(default="", max_length=1000, description="What was done about it.")


class EscalationSummary(TypedDict):
    """An escalation, as an agent needs it."""

    id: str
    title: str
    severity: str | None
    state: str | None
    reason: str
    raised_at: str | None
    acknowledged_by: str


def emotion_tool(source: EmotionSource) -> BaseTool:
    """The tool `how_the_user_sounds`. Its content is an `EmotionReading` as JSON, its artifact the reading itself.

    Args:
        source: `SessionEmotions` or `LiveEmotions`.
    """

    def read(config: RunnableConfig, history_seconds: int = 0) -> tuple[str, EmotionReading]:
        result = source.read(config, history=float(history_seconds))
        return json.dumps(result), result

    async def aread(config: RunnableConfig, history_seconds: int = 0) -> tuple[str, EmotionReading]:
        result = await source.aread(config, history=float(history_seconds))
        return json.dumps(result), result

    return StructuredTool.from_function(
        read,
        aread,
        name="how_the_user_sounds",
        description=(
            "How the user's voice sounds now: emotion with a probability, valence, arousal, distress, and escalations "
            "in force. Estimated from sound alone, and often wrong: it can guide your tone, it is no fact about the "
            "user. `known` false means that nothing should be made of it."
        ),
        args_schema=EmotionArguments,
        response_format="content_and_artifact",
    )


class UndertoneToolkit(BaseToolkit):
    """The tools of one source.

    `how_the_user_sounds` and `list_escalations`, and with `acknowledge_as` also `acknowledge_escalation`. Of a session
    by name (`SessionEmotions`) an agent sees the escalations of that session only, and can acknowledge no others.

    Args:
        source: Where readings come from. Escalations need `SessionEmotions`.
        acknowledge_as: Who acknowledges, for the audit trail; None: the agent cannot. An acknowledgement tells people
            that somebody has taken it on. Put a human before that tool.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    source: Any
    acknowledge_as: str | None = None

    def get_tools(self) -> list[BaseTool]:
        """The tools."""
        tools = [emotion_tool(self.source)]
        if isinstance(self.source, SessionEmotions):
            tools.append(_list_tool(self.source))
            if self.acknowledge_as:
                tools.append(_acknowledge_tool(self.source, self.acknowledge_as))
        return tools


def _list_tool(source: SessionEmotions) -> BaseTool:
    def wanted(config: RunnableConfig, open_only: bool) -> undertone.EscalationFilter:
        states = ("raised",) if open_only else _ALL_STATES
        return {
            "session_id": source.session_id(config),
            "states": [undertone.EscalationState(state) for state in states],
        }

    def result(found: list[undertone.Escalation]) -> tuple[str, list[EscalationSummary]]:
        summaries = [_summary(escalation) for escalation in found]
        return json.dumps(summaries), summaries

    def escalations(
        config: RunnableConfig, open_only: bool = True, limit: int = 10
    ) -> tuple[str, list[EscalationSummary]]:
        found: list[undertone.Escalation] = []
        try:
            with undertone.SyncUndertone(source.target, **source.client) as client:
                for escalation in client.escalations(**wanted(config, open_only)):
                    found.append(escalation)
                    if len(found) == limit:
                        break
        except undertone.UndertoneError as error:
            return f"The escalations cannot be listed now: {error.message}", []
        return result(found)

    async def aescalations(
        config: RunnableConfig, open_only: bool = True, limit: int = 10
    ) -> tuple[str, list[EscalationSummary]]:
        found: list[undertone.Escalation] = []
        try:
            async with undertone.Undertone(source.target, **source.client) as client:
                async for escalation in client.escalations(**wanted(config, open_only)):
                    found.append(escalation)
                    if len(found) == limit:
                        break
        except undertone.UndertoneError as error:
            return f"The escalations cannot be listed now: {error.message}", []
        return result(found)

    return StructuredTool.from_function(
        escalations,
        aescalations,
        name="list_escalations",
        description="The escalations of this conversation: moments when a policy asked for a person, with the reason.",
        args_schema=EscalationsArguments,
        response_format="content_and_artifact",
    )


def _acknowledge_tool(source: SessionEmotions, actor: str) -> BaseTool:
    def check(detail: undertone.EscalationDetail, config: RunnableConfig) -> None:
        if detail.escalation.session_id != source.session_id(config):
            raise undertone.NotFound("this conversation has no such escalation")

    def result(done: undertone.Acknowledgement) -> tuple[str, EscalationSummary]:
        summary = _summary(done.escalation)
        already = f"It had been acknowledged by {summary['acknowledged_by']} before; that stands. "
        return (already if done.already else "Acknowledged. ") + json.dumps(summary), summary

    def acknowledge(config: RunnableConfig, escalation_id: str, note: str = "") -> tuple[str, EscalationSummary | None]:
        try:
            with undertone.SyncUndertone(source.target, **source.client) as client:
                check(client.escalation(escalation_id), config)
                return result(client.acknowledge(escalation_id, actor, note))
        except undertone.UndertoneError as error:
            return f"It was not acknowledged: {error.message}", None

    async def aacknowledge(
        config: RunnableConfig, escalation_id: str, note: str = ""
    ) -> tuple[str, EscalationSummary | None]:
        try:
            async with undertone.Undertone(source.target, **source.client) as client:
                check(await client.escalation(escalation_id), config)
                return result(await client.acknowledge(escalation_id, actor, note))
        except undertone.UndertoneError as error:
            return f"It was not acknowledged: {error.message}", None

    return StructuredTool.from_function(
        acknowledge,
        aacknowledge,
        name="acknowledge_escalation",
        description="Tells everybody that somebody has taken an escalation of this conversation on.",
        args_schema=AcknowledgeArguments,
        response_format="content_and_artifact",
    )


def _summary(escalation: undertone.Escalation) -> EscalationSummary:
    return EscalationSummary(
        id=escalation.id,
        title=escalation.title,
        severity=escalation.severity.value if escalation.severity else None,
        state=escalation.state.value if escalation.state else None,
        reason=escalation.reason,
        raised_at=escalation.raised_at.isoformat() if escalation.raised_at else None,
        acknowledged_by=escalation.acknowledged_by,
    )
