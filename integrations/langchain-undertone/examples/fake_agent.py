"""An agent that knows how its caller sounds, without any key: recorded audio in, a scripted model.

    undertone serve                      # in another terminal
    python examples/fake_agent.py --target localhost:50051

Streams hello.wav, asks the agent twice meanwhile, prints what the model gets to read; ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import sys
from typing import Any

import undertone
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_undertone import EmotionMiddleware, LiveEmotions, UndertoneToolkit

HELLO = pathlib.Path(__file__).resolve().parents[3] / "tests" / "data" / "hello.wav"

# What the caller says, and when it has been said, in s of hello.wav.
SCRIPT = (
    (3.0, "Good morning. I would like to ask about my appointment."),
    (6.9, "No! That is not what you told me! I have been waiting for hours!"),
)


class ScriptedModel(BaseChatModel):
    """In place of a chat model: shows what it was told, asks the tool once, and answers the same each time."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            print(f"    the tool says: {str(last.content)[:100]}...")
            answer = AIMessage("I am looking into it.")
        else:
            print("    the model is told:", *(m.text for m in messages if isinstance(m, SystemMessage)))
            call = {"name": "how_the_user_sounds", "args": {"history_seconds": 10}, "id": "1"}
            answer = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=answer)])


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="localhost:50051", help="the Undertone server")
    parser.add_argument("--fast", action="store_true", help="do not wait for the sound")
    arguments = parser.parse_args()

    emotions = LiveEmotions()
    agent = create_agent(
        ScriptedModel(),
        tools=UndertoneToolkit(source=emotions).get_tools(),
        system_prompt="You answer callers of a surgery.",
        # The model of emotions is not very sure of a synthesised voice.
        middleware=[EmotionMiddleware(emotions, min_confidence=0.35)],
    )
    coming = list(SCRIPT)
    source = undertone.sources.from_file(HELLO, realtime=not arguments.fast)
    try:
        async with undertone.Undertone(arguments.target) as client:
            async for event in client.stream(source, labels={"line": "example"}):
                emotions.hear(event)
                if isinstance(event, undertone.Estimate) and coming and event.end >= coming[0][0]:
                    _, text = coming.pop(0)
                    print(f"{event.end:4.1f} s  the caller says: {text}")
                    answer = await agent.ainvoke({"messages": [{"role": "user", "content": text}]})
                    print(f"    the agent says: {answer['messages'][-1].text}")
    except undertone.UndertoneError as error:
        sys.exit(str(error))
    print(f"session {emotions.read()['session_id']} is over")


if __name__ == "__main__":
    asyncio.run(main())
