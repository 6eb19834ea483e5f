"""Jupyter's client side, made for many short lessons: quick to connect, quick to notice the end."""

import asyncio
import contextlib
import time
from queue import Empty
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from blackbelt.provision import Warm, WarmProvisioner

START_SECONDS = 60.0
# What an output without text counts as, in characters.
_OUTPUT = 200
# Seconds for outputs that are still on their way when the kernel is dead.
_LATE = 0.2


class KernelClient(AsyncKernelClient):
    """Connects without what costs time: heartbeats, and waiting for silence on IOPub."""

    def start_channels(self, *_: Any, **__: Any) -> None:
        super().start_channels(shell=True, iopub=True, stdin=False, hb=False, control=False)

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        deadline = time.monotonic() + (timeout or START_SECONDS)
        while time.monotonic() < deadline:
            self.kernel_info()
            with contextlib.suppress(Empty):
                await self.get_shell_msg(timeout=1)
                # IOPub is connected as soon as anything arrives.
                await self.get_iopub_msg(timeout=1)
                return
            if not await self.is_alive():
                raise RuntimeError("it died before it was ready")
        raise RuntimeError(f"it was not ready after {timeout or START_SECONDS:.0f} s")


class Manager(AsyncKernelManager):
    """A manager whose kernel comes from the warm process."""

    warm: Warm | None = None


class Driver(NotebookClient):
    """Executes cells; notices at once that the kernel is dead, or that output has no end."""

    most_characters = 0
    characters = 0

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        found = super().process_message(msg, cell, cell_index)
        if msg["msg_type"] == "stream":
            self.characters += len(msg["content"]["text"])
        elif msg["msg_type"] in ("display_data", "execute_result", "update_display_data"):
            text = msg["content"]["data"].get("text/plain", "")
            self.characters += max(len(text), _OUTPUT)
        if self.is_flooded and self.task_poll_for_reply is not None:
            self.task_poll_for_reply.cancel()
        return found

    @property
    def is_flooded(self) -> bool:
        return self.characters > self.most_characters

    async def _async_poll_kernel_alive(self) -> None:
        manager: Any = self.km
        if not isinstance(manager.provisioner, WarmProvisioner):
            await super()._async_poll_kernel_alive()
            return
        await manager.provisioner.exited.wait()
        await asyncio.sleep(_LATE)
        if self.task_poll_for_reply is not None:
            self.task_poll_for_reply.cancel()
