"""Who computes with how many threads: training with all, whatever runs beside it with one."""

import threading
from concurrent.futures import ThreadPoolExecutor

# Set where a thread may be in foreign code when this process ends (gloo, an observer that nobody waits for any more):
# the interpreter's orderly end would tear it out of there, which aborts the process.
must_end_at_once = threading.Event()


def keep_for_this_thread() -> None:
    """The calling thread keeps its number of threads, and every one that begins to compute later has itself alone.

    A second pool of OpenMP, even an idle one, makes libgomp count more threads than processors: from then on threads
    wait for each other asleep, and a step of many small parallel parts takes 1.4 times as long.
    """
    import torch  # here, as what is light loads this wing too

    torch.get_num_threads()  # a thread that asks for the first time is told what was last set by any
    with ThreadPoolExecutor(1) as helper:
        helper.submit(torch.set_num_threads, 1).result()
