"""A reply whose signal was taken away by a send on the same socket is found all the same."""

import asyncio
import time

import zmq
import zmq.asyncio
from jupyter_client.session import Session

from lib.study.client import ReplyChannel, WorkbenchClient


async def reply_during_a_send(address: str) -> dict:
    session = Session(key=b"secret")
    kernel, asking = zmq.Context.instance().socket(zmq.ROUTER), zmq.asyncio.Context.instance().socket(zmq.DEALER)
    try:
        asking.linger = kernel.linger = 0
        asking.identity = b"client"
        kernel.bind(address)
        asking.connect(address)
        channel = ReplyChannel(asking, session)
        channel.send(session.msg("execute_request"))
        identity, *_ = kernel.recv_multipart()
        waiting = asyncio.ensure_future(channel.get_msg())
        await asyncio.sleep(0.1)
        session.send(kernel, "execute_reply", ident=identity)
        time.sleep(0.1)  # the reply arrives while this thread is busy ...
        channel.send(session.msg("comm_msg"))  # ... and this send takes its signal
        return await asyncio.wait_for(waiting, 30)
    finally:
        asking.close()
        kernel.close()


def test_reply_is_found_after_a_send(tmp_path):
    assert asyncio.run(reply_during_a_send(f"ipc://{tmp_path}/s"[:100]))["msg_type"] == "execute_reply"


def test_kernels_of_studies_are_heard_through_it():
    from lib.study.attempt import _connection

    assert _connection("x")["KernelManager"]["client_factory"] is WorkbenchClient
    assert isinstance(WorkbenchClient().shell_channel_class, type)
    assert issubclass(WorkbenchClient().shell_channel_class, ReplyChannel)
