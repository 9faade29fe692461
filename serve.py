"""Serves a page to try voices and an HTTP API: `python serve.py -c output`; see docs/speaking.md."""

import argparse
import ipaddress
import re
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import Parser, device, int_at_least, run_command
from common.errors import UserError

EXAMPLES = """examples:
  python serve.py -c output
  python serve.py -c output -c other/checkpoints/step_00001000.pt --vocoder griffin-lim --vocoder universal
  curl -H "Content-Type: application/json" -d '{"text": "Hello there."}' http://127.0.0.1:8000/api/speech -o hello.wav
"""
INSTALL = "the page needs starlette and uvicorn: pip install -r requirements-demo.txt"
GRACE_S = 10  # for requests that are being answered when it ends


def parser() -> Parser:
    p = Parser(description=__doc__, epilog=EXAMPLES)
    add = p.add_argument
    voice = "a run directory, a checkpoint or an exported voice; repeat it to compare several"
    add("-c", "--checkpoint-path", required=True, type=Path, action="append", metavar="VOICE", help=voice)
    vocoder = "griffin-lim (default), universal, lj or a generator's file; repeat it to offer several"
    add("--vocoder", action="append", metavar="NAME|FILE", help=vocoder)
    add("--precision", choices=["fp32", "bf16", "int8", "auto"], default="fp32", help="see synthesize.py")
    add("--device", type=device, default="auto", metavar="NAME", help="see synthesize.py")
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: only this machine can connect)")
    add("--port", type=port, default=8000, help="port to listen on; 0 takes a free one (default 8000)")
    longest = "characters in a request, at most (default 5000)"
    add("--longest-text", type=int_at_least(1), default=5000, metavar="N", help=longest)
    add("--queue", type=int_at_least(1), default=64, metavar="N", help="requests that may wait, at most (default 64)")
    return p


def port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to 65535")
    return int(text)


def listening(host: str, port: int) -> socket.socket:
    """UserError where it can't listen there."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port} ({error.strerror}); choose another --port") from error


def hosts_of(host: str) -> list[str]:
    """Names under which browsers may ask for it. A foreign page that points its own name here is sent away."""
    try:
        is_everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        is_everywhere = False
    return ["*"] if is_everywhere else ["127.0.0.1", "localhost", host]


def serve(args: argparse.Namespace) -> int:
    try:
        import uvicorn
        from starlette.applications import Starlette  # noqa: F401 - whether it is there
    except ImportError:
        raise UserError(INSTALL) from None
    from serving.app import Limits, create_app
    from serving.offer import Offer

    vocoders = args.vocoder or ["griffin-lim"]
    offer = Offer.load(args.checkpoint_path, vocoders, precision=args.precision, device=args.device)
    limits = Limits(longest_text=args.longest_text, queue_size=args.queue)
    app = create_app(offer, limits=limits, hosts=hosts_of(args.host))
    with listening(args.host, args.port) as sock:
        url = f"http://{args.host}:{sock.getsockname()[1]}/"
        print(f"listening on {url} (Ctrl+C ends it)", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, ws="none", lifespan="on", timeout_graceful_shutdown=GRACE_S
        )
        # uvicorn raises the signal again once it has ended, and that is no failure
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGINT, lambda *_: None)
        uvicorn.Server(config).run(sockets=[sock])
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: serve(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
