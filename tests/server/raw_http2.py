"""A small raw HTTP/2 peer: enough to leave gRPC messages unfinished on many streams."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
CONTINUATION = 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW = 4
CANCEL = 8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    length = struct.pack(">I", len(payload))[1:]
    return length + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _string(text: bytes) -> bytes:
    # HPACK's integers (RFC 7541, section 5.1), with a prefix of 7 bits.
    if (left := len(text)) < 127:
        return bytes([left]) + text
    out = bytearray([127])
    left -= 127
    while left >= 128:
        out.append(left % 128 + 128)
        left //= 128
    return bytes(out) + bytes([left]) + text


def _field(name: str, value: str) -> bytes:
    return b"\0" + _string(name.encode()) + _string(value.encode())


def headers(path: str, extra=(), verb: str = "POST", kind: str = "application/grpc") -> bytes:
    fields = [
        (":method", verb),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        *([("content-type", kind), ("te", "trailers")] if kind and verb == "POST" else []),
        *extra,
    ]
    return b"".join(_field(name, value) for name, value in fields)


class Peer:
    """One connection, whose flow control is kept to."""

    def __init__(self, address: str, window: int = 1 << 20, source: str = "") -> None:
        """`window` is how much of each answer it takes unasked; `source` the address that it
        comes from, if that matters.
        """
        host, port = address.rsplit(":", 1)
        own = (source, 0) if source else None
        self.socket = socket.create_connection((host, int(port)), source_address=own)
        self.lock, self.changed = threading.Lock(), threading.Condition()
        self.connection_window = self.initial_window = 65_535
        self.windows: dict[int, int] = {}
        self.ended: set[int] = set()
        self.closed = False
        self.send(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, window)))
        self._begin()

    def _begin(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, data: bytes) -> None:
        with self.lock:
            self.socket.sendall(data)

    def close(self) -> None:
        # Its thread waits in it: closing alone would end nothing.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def _read(self) -> None:
        try:
            while True:
                head = self._exactly(9)
                kind, flags = head[3], head[4]
                stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
                self._take(kind, flags, stream, self._exactly(int.from_bytes(head[:3], "big")))
        except (OSError, EOFError):
            with self.changed:
                self.closed = True
                self.changed.notify_all()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                key, value = struct.unpack(">HI", payload[at : at + 6])
                if key == INITIAL_WINDOW:
                    with self.changed:
                        for known in self.windows:
                            self.windows[known] += value - self.initial_window
                        self.initial_window = value
                        self.changed.notify_all()
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == WINDOW:
            more = int.from_bytes(payload, "big") & 0x7FFFFFFF
            with self.changed:
                if stream == 0:
                    self.connection_window += more
                else:
                    self.windows[stream] = self.windows.get(stream, self.initial_window) + more
                self.changed.notify_all()
        elif kind == RESET or (kind in (HEADERS, DATA) and flags & END_STREAM):
            with self.changed:
                self.ended.add(stream)
                self.changed.notify_all()

    def open(
        self, stream: int, path: str, extra=(), kind: str = "application/grpc", verb: str = "POST"
    ) -> None:
        self.windows.setdefault(stream, self.initial_window)
        self.send(frame(HEADERS, END_HEADERS, stream, headers(path, extra, verb, kind)))

    def end(self, stream: int) -> None:
        """The end of a request."""
        self.send(frame(DATA, END_STREAM, stream))

    def data(self, stream: int, data: bytes, patience: float = 3) -> int:
        """Sends as far as the server lets it: how many bytes that were."""
        sent, end = 0, time.monotonic() + patience
        while sent < len(data):
            with self.changed:
                while min(self.connection_window, self.windows[stream]) <= 0:
                    if self.closed or stream in self.ended or time.monotonic() > end:
                        return sent
                    self.changed.wait(0.1)
                if self.closed or stream in self.ended:
                    return sent
                count = min(16_384, len(data) - sent, self.connection_window, self.windows[stream])
                self.connection_window -= count
                self.windows[stream] -= count
            try:
                self.send(frame(DATA, 0, stream, data[sent : sent + count]))
            except OSError:
                return sent
            sent += count
        return sent

    def get(self, stream: int, path: str) -> None:
        """A request of plain HTTP."""
        head = headers(path, verb="GET")
        self.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, head))

    def message(self, stream: int, path: str, data: bytes, extra=()) -> None:
        """A call with one small message, which is its last."""
        self.open(stream, path, extra)
        self.send(frame(DATA, END_STREAM, stream, struct.pack(">BI", 0, len(data)) + data))

    def begin(self, stream: int, path: str, data: bytes, extra=()) -> None:
        """A call with one small message, after which more may follow."""
        self.open(stream, path, extra)
        self.send(frame(DATA, 0, stream, struct.pack(">BI", 0, len(data)) + data))

    def reset(self, stream: int) -> None:
        """Cancels a call."""
        self.send(frame(RESET, 0, stream, struct.pack(">I", CANCEL)))

    def begin_message(
        self, stream: int, path: str, length: int, patience: float = 3, extra=()
    ) -> int:
        """A call whose message lacks its last byte: the bytes that were taken of it."""
        self.open(stream, path, extra)
        self.data(stream, b"\0" + struct.pack(">I", length), patience)
        return self.data(stream, bytes(length - 1), patience)

    def wait_ended(self, streams, seconds: float) -> bool:
        with self.changed:
            return self.changed.wait_for(
                lambda: self.closed or set(streams) <= self.ended, timeout=seconds
            )


class Deaf(Peer):
    """One that lets everything be sent to it, and never reads its socket."""

    def _begin(self) -> None:
        most = 2**31 - 1
        # What the server lets a peer send, as it would have said.
        self.initial_window = 1 << 20
        self.connection_window = 4 << 20
        self.send(frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, most)))
        self.send(frame(WINDOW, 0, 0, struct.pack(">I", most - 65_535)))

    def send(self, data: bytes) -> None:
        """Sends, if the server still listens."""
        if self.closed:
            return
        try:
            super().send(data)
        except OSError:
            self.closed = True
