"""One run of the Python SDK: connect, list the tools, call one, leave. Prints {"tools": [...], "text": "..."}."""

import asyncio
import json
import sys
from importlib.metadata import version

asked = json.loads(sys.argv[1])


def told(tools, result):
    text = "\n".join(block.text for block in result.content if block.type == "text")
    if getattr(result, "is_error", None) or getattr(result, "isError", None):
        raise RuntimeError(text)
    print(json.dumps({"tools": [tool.name for tool in tools.tools], "text": text}))


async def in_session(streams):
    from mcp import ClientSession

    async with ClientSession(streams[0], streams[1]) as session:
        await session.initialize()
        told(await session.list_tools(), await session.call_tool(asked["tool"], asked["args"]))


async def over_sse():
    from mcp.client.sse import sse_client

    async with sse_client(asked["url"], headers=asked["headers"]) as streams:
        await in_session(streams)


async def over_http_v1():
    from mcp.client.streamable_http import streamablehttp_client

    async with streamablehttp_client(asked["url"], headers=asked["headers"]) as streams:
        await in_session(streams)


async def over_http_v2():
    import httpx2
    from mcp.client import Client
    from mcp.client.streamable_http import streamable_http_client

    async with httpx2.AsyncClient(headers=asked["headers"], timeout=60) as http:
        transport = streamable_http_client(asked["url"], http_client=http)
        async with Client(transport, mode=asked["mood"]) as client:
            told(await client.list_tools(), await client.call_tool(asked["tool"], asked["args"]))


if asked["mood"] == "sse":
    run = over_sse
elif version("mcp").startswith("1."):
    run = over_http_v1
else:
    run = over_http_v2
asyncio.run(run())
