"""Who computes with how many threads: training with all, whatever runs beside it with one."""

from concurrent.futures import ThreadPoolExecutor


def one_thread_for_others() -> None:
    """The calling thread keeps its number of threads, and every one that begins to compute later has itself alone.

    A second pool of OpenMP, even an idle one, makes libgomp count more threads than processors: from then on threads
    wait for each other asleep, and a step of many small parallel parts takes 1.4 times as long.
    """
    import torch  # here, as what is light loads this wing too

    torch.get_num_threads()  # a thread that asks for the first time is told what was last set by any
    with ThreadPoolExecutor(1) as helper:
        helper.submit(torch.set_num_threads, 1).result()
