"""How long requests take when many come at once, with a server that is running: `python serve.py -c output`.

    python benchmarks/serving.py --port 8000 --at-once 50 --requests 200

Every answer is compared with the same request made alone: none may be lost or mixed up.
"""

import argparse
import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor

TEXTS = ("Hello there.", "One more.", "The green bird is near the old river.", "And higher.", "The last one of them.")


def asked(port: int, number: int) -> tuple[int, bytes, float]:
    """Status, body and seconds of a request that is different for each number modulo 50."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    body = json.dumps({"text": TEXTS[number % 5], "seed": number % 50})
    connection.request("POST", "/api/speech", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content, time.perf_counter() - began


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--port", type=int, default=8000)
    p.add_argument("--at-once", type=int, default=50)
    p.add_argument("--requests", type=int, default=200)
    args = p.parse_args()
    alone = [asked(args.port, i) for i in range(min(50, args.requests))]
    began = time.perf_counter()
    with ThreadPoolExecutor(args.at_once) as pool:
        answers = list(pool.map(lambda i: asked(args.port, i), range(args.requests)))
    wall_s = time.perf_counter() - began
    lost = sum(status != 200 for status, _, _ in answers)
    mixed = sum(answers[i][1] != alone[i % 50][1] for i in range(args.requests))
    times = sorted(seconds for _, _, seconds in answers)
    p50, p95 = (times[min(len(times) - 1, int(share * len(times)))] for share in (0.5, 0.95))
    one = sum(seconds for _, _, seconds in alone) / len(alone)
    print(f"{args.requests} requests, {args.at_once} at once: {lost} lost, {mixed} mixed up")
    print(f"p50 {p50:.1f} s, p95 {p95:.1f} s")
    print(f"alone {one:.2f} s each; {args.requests / wall_s:.2f} requests a second")


if __name__ == "__main__":
    main()
