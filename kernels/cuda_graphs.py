"""Work on fixed buffers, recorded once as a CUDA graph.

A decoder step is some thirty small operations, and starting one costs more than doing it. A graph starts thousands at
once. It reads and writes the addresses of its recording, so whoever replays it owns buffers that stay where they are.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from common.errors import first_line, is_out_of_memory
from common.log import LOG
from kernels.host_sync import allow_host_sync

_devices_without_graphs: set[torch.device] = set()  # a recording failed there: it would fail again


def record_graph(work: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph | None:
    """A graph that does `work`; None where there is no CUDA, or where recording has failed, which is logged once.

    `work` may allocate and free, but leaves nothing behind that it allocated. Here it runs once, for libraries set
    themselves up on first use, and is then recorded: its buffers must bear that. Waits for the device. Works in
    autograd's threads too, and other threads may use CUDA meanwhile (a loader that pins memory does).
    """
    if device.type != "cuda" or device in _devices_without_graphs:
        return None
    stream, graph = side_stream(device), torch.cuda.CUDAGraph()
    with allow_host_sync(device), torch.cuda.device(device):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            work()
        torch.cuda.current_stream().wait_stream(stream)
        before = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=pool(device), stream=stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError as error:
            torch.cuda.set_stream(before)  # torch leaves its own in place where the end of a recording fails
            pool.cache_clear()  # the allocator goes on counting this one as being recorded
            side_stream.cache_clear()
            if is_out_of_memory(error):
                raise
            _devices_without_graphs.add(device)
            LOG.warning("CUDA graphs can't be recorded (%s): decoding goes on without, slower", first_line(error))
            return None
    return graph


@cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """Recording needs another stream than the default one."""
    return torch.cuda.Stream(device)


@cache
def pool(device: torch.device) -> Any:
    """Of the memory that graphs allocate while they run. One for all: none runs beside another or keeps anything."""
    return torch.cuda.graph_pool_handle()
