"""Who computes with how many threads: training with all, whatever runs beside it with one."""

import os
from concurrent.futures import ThreadPoolExecutor

from common.log import LOG
from common.processors import n_processors, share_of_time


def one_thread_for_others() -> None:
    """The calling thread keeps its number of threads, and every one that begins to compute later has itself alone.

    A second pool of OpenMP, even an idle one, makes libgomp count more threads than processors: from then on threads
    wait for each other asleep, and a step of many small parallel parts takes 1.4 times as long.
    """
    import torch  # here, as what is light loads this wing too

    torch.get_num_threads()  # a thread that asks for the first time is told what was last set by any
    with ThreadPoolExecutor(1) as helper:
        helper.submit(torch.set_num_threads, 1).result()


def keep_to_share() -> None:
    """No more threads than a container's share of time feeds; PyTorch counts processors. OMP_NUM_THREADS beats this."""
    import torch

    n_threads = n_processors()
    if "OMP_NUM_THREADS" in os.environ or torch.get_num_threads() <= n_threads:
        return
    torch.set_num_threads(n_threads)
    LOG.info("computing with threads=%d: this process may use %.3g processors' time", n_threads, share_of_time())
