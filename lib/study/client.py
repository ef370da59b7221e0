"""The client side of a kernel, hardened against a reply that nobody notices.

A panel's output widget makes nbclient answer the kernel on the very socket on which the kernel's reply is awaited.
ZeroMQ signals an arrival once, and sending takes the signal away: a reply that comes in at that moment is there,
but the client waits for ever. Looking again from time to time finds it.
"""

import contextlib
from queue import Empty

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from traitlets import Type

LOOK_AGAIN_S = 0.5


class ReplyChannel(AsyncZMQSocketChannel):
    """The channel of requests and replies; waiting without a limit is many short waits."""

    async def get_msg(self, timeout: float | None = None) -> dict:
        while timeout is None:
            with contextlib.suppress(Empty):
                return await super().get_msg(LOOK_AGAIN_S)
        return await super().get_msg(timeout)


class WorkbenchClient(AsyncKernelClient):
    shell_channel_class = Type(ReplyChannel)
