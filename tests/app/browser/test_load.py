"""Twenty sessions at once on one trace, by the protocol that browsers speak."""

import asyncio
from pathlib import Path

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

SESSIONS = 20
MEGABYTES_PER_SESSION = 20
PATIENCE = 300


def resident_megabytes(process: int) -> float:
    fields = Path(f"/proc/{process}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) / 1024


async def session(url: str, page: str, query: str) -> list[str]:
    """Open a page as a browser does, and return what its script complained of."""
    from websockets.asyncio.client import connect

    complaints: list[str] = []
    address = url.replace("http", "ws", 1) + "/_stcore/stream"
    async with connect(address, subprotocols=["streamlit"], max_size=None) as socket:
        asked = BackMsg()
        asked.rerun_script.query_string = query
        asked.rerun_script.page_name = page
        await socket.send(asked.SerializeToString())
        async for packet in socket:
            message = ForwardMsg.FromString(packet)
            kind = message.WhichOneof("type")
            if kind == "delta":
                element = message.delta.new_element
                if element.HasField("exception"):
                    complaints.append(element.exception.message)
                if element.HasField("alert"):
                    complaints.append(element.alert.body)
            if kind == "script_finished":
                finished = ForwardMsg.ScriptFinishedStatus.Name(message.script_finished)
                return complaints + ([] if finished.endswith("SUCCESSFULLY") else [finished])
    return [*complaints, "the server hung up"]


async def sessions(url: str, count: int) -> list[list[str]]:
    waiting = [session(url, "rhythm", "trace=a.safetensors&token=9") for _ in range(count)]
    return await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)


def test_twenty_sessions_share_one_trace_within_bounded_memory(server):
    assert asyncio.run(sessions(server.url, 1)) == [[]]
    before = resident_megabytes(server.process.pid)
    assert asyncio.run(sessions(server.url, SESSIONS)) == [[]] * SESSIONS
    after = resident_megabytes(server.process.pid)
    assert after - before < SESSIONS * MEGABYTES_PER_SESSION
