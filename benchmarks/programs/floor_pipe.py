"""Floor benchmark: a cipher, BLAKE3 and `pwrite` between two processes, and nothing else.

The least cost of any program of this architecture. A DEALER requests pieces by number with a fixed
credit, a ROUTER reads them from the file, and the DEALER's side digests each piece and writes it.
Missing are picking, scheduling, journal, digest of the whole, and access control. The cipher is
CURVE, which carries everything but pieces, or AES-256-GCM with one key, which carries bulk pieces.

Output: one JSON line when ready. The fetching side then waits for a line on standard input, and
prints the times of its start and end.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time

import zmq
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PIECE_BYTES = 512 * 1024
CREDIT_PIECES = 6
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NUMBER_BYTES, _NUMBERS_PER_NONCE = 4, 3


def main() -> None:
    _keep_buffers()
    role, cipher, first, second = sys.argv[1:]
    aes = AESGCM(bytes(32)) if cipher == "aes" else None
    if role == "serve":
        serve(aes, first, second)
    else:
        fetch(aes, first, json.loads(second))


def serve(aes: AESGCM | None, endpoint: str, source: str) -> None:
    """Serve the pieces of `source` until the process is ended."""
    public, secret = zmq.curve_keypair()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        if aes is None:
            router.curve_server = True
            router.curve_publickey, router.curve_secretkey = public, secret
        router.sndhwm = 4 * CREDIT_PIECES
        router.bind(endpoint)
        data = os.open(source, os.O_RDONLY)
        digests = _piece_digests(data)
        print(json.dumps({"key": public.decode(), "digests": digests}), flush=True)
        while True:
            client, number = router.recv_multipart()
            piece = os.pread(data, PIECE_BYTES, int.from_bytes(number, "big") * PIECE_BYTES)
            if aes is not None:
                piece = aes.encrypt(number * _NUMBERS_PER_NONCE, piece, None)
            router.send(client, zmq.SNDMORE)
            router.send(number, zmq.SNDMORE)
            router.send(piece, copy=False)


def fetch(aes: AESGCM | None, target: str, sources: list[list[str]]) -> None:
    """Fetch every piece from `sources` (endpoint and key each) in turn into `target`.

    Standard input has two lines: the digests, then the start.
    """
    digests = [bytes.fromhex(text) for text in json.loads(sys.stdin.readline())]
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    out = os.open(target, os.O_WRONLY | os.O_CREAT, 0o600)
    with zmq.Context() as context:
        dealers = [
            _dealer(context, endpoint, key if aes is None else None) for endpoint, key in sources
        ]
        poller = zmq.Poller()
        for dealer in dealers:
            poller.register(dealer, zmq.POLLIN)
        waiting = list(range(len(digests) - 1, -1, -1))
        for _ in range(CREDIT_PIECES):
            for dealer in dealers:
                _request_next(dealer, waiting)
        missing = len(digests)
        while missing:
            for dealer, _ in poller.poll():
                number_bytes = dealer.recv()
                number = int.from_bytes(number_bytes, "big")
                frame = dealer.recv(copy=False)
                _request_next(dealer, waiting)
                piece = frame.buffer
                if aes is not None:
                    piece = memoryview(aes.decrypt(number_bytes * _NUMBERS_PER_NONCE, piece, None))
                if blake3(piece).digest() != digests[number]:
                    raise SystemExit(f"piece {number} is damaged")
                os.pwrite(out, piece, number * PIECE_BYTES)
                missing -= 1
        os.close(out)
        print(json.dumps({"started": started, "done": time.monotonic()}), flush=True)
        for dealer in dealers:
            dealer.close()


def _dealer(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, key: str | None
) -> zmq.Socket[bytes]:
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    if key is not None:
        dealer.curve_serverkey = key.encode()
        dealer.curve_publickey, dealer.curve_secretkey = zmq.curve_keypair()
    dealer.connect(endpoint)
    return dealer


def _request_next(dealer: zmq.Socket[bytes], waiting: list[int]) -> None:
    if waiting:
        dealer.send(waiting.pop().to_bytes(_NUMBER_BYTES, "big"))


def _piece_digests(data: int) -> list[str]:
    size = os.fstat(data).st_size
    return [
        blake3(os.pread(data, PIECE_BYTES, start)).hexdigest()
        for start in range(0, size, PIECE_BYTES)
    ]


def _keep_buffers() -> None:
    """Let malloc reuse freed buffers of a piece's size instead of mapping each one anew.

    Limits: 32 MiB is the largest threshold that glibc accepts.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 256 << 20)


if __name__ == "__main__":
    main()
