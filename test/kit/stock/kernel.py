"""The kernel's part of the stock ztunnel that tests play: ZDS, and sockets in the network namespaces that come with it.

    kernel.py ZDS_SOCKET DATA_NAME

Standard input has one JSON command a line, standard output one JSON event a line (see kernel.ts). Every connection, taken or
made, reaches the other process as one connection to the abstract Unix socket DATA_NAME, with a line of JSON in front; bytes
are relayed with each direction ended by itself. Only the standard library is used, and nothing of Tulle's own.
"""

import array
import asyncio
import base64
import ctypes
import itertools
import json
import os
import socket
import struct
import sys

MARK = 0x539
PORTS = {"outbound": 15001, "inbound": 15006, "hbone": 15008}
DNS_PORT = 15053
CLONE_NEWNET = 0x40000000
IP_FREEBIND, IP_TRANSPARENT, IPV6_TRANSPARENT, IPV6_FREEBIND = 15, 19, 75, 78
SO_ORIGINAL_DST = 80
LIBC = ctypes.CDLL(None, use_errno=True)
HOME = os.open("/proc/self/ns/net", os.O_RDONLY)


def inside(netns, make):
    """Makes a socket in another namespace; the thread is back home before anything else runs."""
    enter(netns)
    try:
        return make()
    finally:
        enter(HOME)


def enter(netns):
    if LIBC.setns(netns, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def marked(family, kind):
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    return sock


def transparent(sock):
    sock.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)


def tcp_listener(port):
    sock = marked(socket.AF_INET6, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    transparent(sock)
    sock.bind(("::", port))
    sock.listen(128)
    return sock


def udp_listener(ip):
    sock = marked(family_of(ip), socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((ip, DNS_PORT))
    return sock


def family_of(ip):
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def dial_socket(ip, source):
    sock = marked(family_of(ip), socket.SOCK_STREAM)
    if source is not None:
        transparent(sock)
        sock.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        sock.bind((source, 0))
    return sock


def original_destination(sock):
    """Where the connection went before a rule redirected it; its local address when none did."""
    for level, family, size in ((socket.SOL_IP, socket.AF_INET, 16), (socket.IPPROTO_IPV6, socket.AF_INET6, 28)):
        try:
            raw = sock.getsockopt(level, SO_ORIGINAL_DST, size)
        except OSError:
            continue
        start, length = (4, 4) if family == socket.AF_INET else (8, 16)
        (port,) = struct.unpack("!H", raw[2:4])
        return [socket.inet_ntop(family, raw[start : start + length]), port]
    return list(sock.getsockname()[:2])


def emit(**event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class Kernel:
    def __init__(self, zds_path, data_name):
        self.loop = asyncio.get_running_loop()
        self.zds_path = zds_path
        self.data_path = "\0" + data_name
        self.zds = None
        self.numbers = itertools.count(1)
        self.namespaces = {}  # handle -> descriptor
        self.listening = {}  # handle -> tasks that each own a listener
        self.resolving = {}  # number -> socket that takes queries
        self.connections = {}  # number -> (handle, socket of the pod, task that relays)
        self.tasks = set()

    def start(self, coroutine):
        task = self.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    # Commands

    def do_connect(self):
        """Connects to the node agent; what it says arrives as events."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(self.zds_path)
        except OSError as error:
            sock.close()
            emit(event="disconnected", error=str(error))
            return
        sock.setblocking(False)
        self.zds = sock
        self.loop.add_reader(sock, self.receive_zds)
        emit(event="connected")

    def do_send(self, hex):
        self.zds.send(bytes.fromhex(hex))

    def do_disconnect(self):
        if self.zds is not None:
            self.loop.remove_reader(self.zds)
            self.zds.close()
            self.zds = None

    def do_serve(self, netns):
        """Opens the listeners of a pod; either all of them or, with an error, none."""
        sockets = []
        try:
            for name, port in PORTS.items():
                sockets.append((name, inside(self.namespaces[netns], lambda: tcp_listener(port))))
            for ip in ("127.0.0.1", "::1"):
                sockets.append(("dns", inside(self.namespaces[netns], lambda: udp_listener(ip))))
        except OSError as error:
            for _, sock in sockets:
                sock.close()
            emit(event="served", netns=netns, error=os.strerror(error.errno))
            return
        self.listening[netns] = [
            self.start(self.resolve(netns, sock) if name == "dns" else self.accept(netns, name, sock))
            for name, sock in sockets
        ]
        emit(event="served", netns=netns, error=None)

    def do_stop_listening(self, netns):
        for task in self.listening.pop(netns, []):
            task.cancel()

    def do_release(self, netns):
        """Ends everything in a namespace, as a stock ztunnel does at once when a pod is deleted."""
        self.do_stop_listening(netns)
        for handle, _, task in self.connections.values():
            if handle == netns:
                task.cancel()
        os.close(self.namespaces.pop(netns))

    def do_dial(self, id, netns, ip, port, source):
        self.start(self.dial(id, netns, ip, port, source))

    def do_reset(self, connection):
        """Ends a pod's connection with a reset."""
        _, sock, task = self.connections.get(connection, (None, None, None))
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            task.cancel()

    def do_answer(self, listener, to, bytes):
        if listener in self.resolving:
            self.resolving[listener].sendto(base64.b64decode(bytes), tuple(to))

    # ZDS

    def receive_zds(self):
        room = socket.CMSG_SPACE(4 * array.array("i").itemsize)
        try:
            data, ancillary, flags, _ = self.zds.recvmsg(1024, room)
        except BlockingIOError:
            return
        except OSError as error:
            self.do_disconnect()
            emit(event="disconnected", error=str(error))
            return
        if not data:
            self.do_disconnect()
            emit(event="disconnected", error="end of file")
            return
        emit(
            event="packet",
            hex=data.hex(),
            truncated=bool(flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)),
            netns=[self.keep(fd) for fd in descriptors(ancillary)],
        )

    def keep(self, fd):
        """The handle of a namespace; one that is known keeps its own."""
        for handle, known in self.namespaces.items():
            if os.path.sameopenfile(known, fd):
                os.close(fd)
                return handle
        handle = next(self.numbers)
        self.namespaces[handle] = fd
        return handle

    # Connections

    async def accept(self, netns, listener, sock):
        with sock:
            while True:
                taken, peer = await self.loop.sock_accept(sock)
                self.start(
                    self.bridge(
                        taken,
                        netns,
                        accepted=listener,
                        peer=list(peer[:2]),
                        local=list(taken.getsockname()[:2]),
                        original=original_destination(taken),
                    )
                )

    async def dial(self, id, netns, ip, port, source):
        sock = None
        try:
            sock = inside(self.namespaces[netns], lambda: dial_socket(ip, source))
            await self.loop.sock_connect(sock, (ip, port))
        except OSError as error:
            if sock is not None:
                sock.close()
            emit(event="failed", id=id, error=os.strerror(error.errno))
            return
        except KeyError:
            emit(event="failed", id=id, error="the pod is gone")
            return
        await self.bridge(sock, netns, dialled=id)

    async def bridge(self, sock, netns, **head):
        """Has the other process serve the connection, until both directions have ended or one has broken."""
        number = next(self.numbers)
        self.connections[number] = (netns, sock, asyncio.current_task())
        data = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self.loop.sock_connect(data, self.data_path)
            await self.loop.sock_sendall(data, (json.dumps({**head, "netns": netns, "connection": number}) + "\n").encode())
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self.pipe(sock, data))
                directions.create_task(self.pipe(data, sock))
        except* OSError:
            pass
        finally:
            del self.connections[number]
            sock.close()
            data.close()

    async def pipe(self, source, sink):
        while chunk := await self.loop.sock_recv(source, 262144):
            await self.loop.sock_sendall(sink, chunk)
        sink.shutdown(socket.SHUT_WR)

    async def resolve(self, netns, sock):
        number = next(self.numbers)
        self.resolving[number] = sock
        try:
            while True:
                query, peer = await self.loop.sock_recvfrom(sock, 4096)
                encoded = base64.b64encode(query).decode()
                emit(event="query", netns=netns, listener=number, to=list(peer), bytes=encoded)
        finally:
            del self.resolving[number]
            sock.close()


def descriptors(ancillary):
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            yield from numbers


async def main():
    kernel = Kernel(*sys.argv[1:])
    reader = asyncio.StreamReader(limit=1 << 20)
    await kernel.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        getattr(kernel, "do_" + command.pop("do"))(**command)


asyncio.run(main())
