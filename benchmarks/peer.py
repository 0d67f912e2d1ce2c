"""a2a-sdk's own server, with an agent that answers at once: `python -m benchmarks.peer [DATABASE]`."""

import asyncio
import sys

import grpc
import uvicorn
import uvloop
from a2a.compat.v0_3 import a2a_v0_3_pb2_grpc
from a2a.compat.v0_3.grpc_handler import CompatGrpcHandler
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler, GrpcHandler
from a2a.server.routes import create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import DatabaseTaskStore, InMemoryTaskStore, TaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    Part,
    Task,
    TaskState,
    TaskStatus,
    a2a_pb2_grpc,
)
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette


class Answers(AgentExecutor):
    """As the scripted model of Hector does: a task, its reply, its end."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id, "the handler makes one"
        assert context.context_id, "the handler makes one"
        assert context.message, "that is what is answered"
        status = TaskStatus(state=TaskState.TASK_STATE_WORKING)
        task = Task(
            id=context.task_id, context_id=context.context_id, status=status, history=[context.message]
        )
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.add_artifact([Part(text=f"You said: {context.get_user_input()}")], name="reply")
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


async def main() -> None:
    store: TaskStore = InMemoryTaskStore()
    if sys.argv[1:]:
        store = DatabaseTaskStore(create_async_engine(f"sqlite+aiosqlite:///{sys.argv[1]}"))
        await store.initialize()  # requests that come at once would each make the table
    card = AgentCard(
        name="Peer",
        description="answers at once",
        version="1",
        capabilities=AgentCapabilities(streaming=True),
        supported_interfaces=[
            AgentInterface(url="http://127.0.0.1", protocol_binding="JSONRPC", protocol_version="1.0")
        ],
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
    )
    handler = DefaultRequestHandler(Answers(), store, card)
    grpc_server = grpc.aio.server()
    a2a_pb2_grpc.add_A2AServiceServicer_to_server(GrpcHandler(handler), grpc_server)  # type: ignore[no-untyped-call]
    a2a_v0_3_pb2_grpc.add_A2AServiceServicer_to_server(CompatGrpcHandler(handler), grpc_server)  # type: ignore[no-untyped-call]
    grpc_port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    routes = [
        *create_jsonrpc_routes(handler, "/rpc", enable_v0_3_compat=True),
        *create_rest_routes(handler, enable_v0_3_compat=True),
    ]
    config = uvicorn.Config(Starlette(routes=routes), port=0, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn offers no event
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    print(f"ready http://127.0.0.1:{port}  grpc: 127.0.0.1:{grpc_port}", flush=True)
    await serving


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
