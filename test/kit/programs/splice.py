"""
Two ends of connections that may be spliced, and what an application could notice.

splice.py server PORT            serves until it is ended: what a connection's first byte says (see SERVERS)
splice.py ACTION HOST PORT ...   one client, which prints its result as a line of JSON (see ACTIONS)
"""
import errno, hashlib, json, os, random, select, socket, struct, sys, threading, time


def read_all(c, pause=0.0):
    digest, size = hashlib.sha256(), 0
    while piece := c.recv(1 << 18):
        digest.update(piece)
        size += len(piece)
        if pause:
            time.sleep(pause)
    return digest.digest() + size.to_bytes(8, 'big')


def digest_of(data):
    return hashlib.sha256(data).digest() + len(data).to_bytes(8, 'big')


def read_exactly(c, size):
    data = b''
    while len(data) < size:
        piece = c.recv(size - len(data))
        if not piece:
            raise EOFError('%d of %d bytes' % (len(data), size))
        data += piece
    return data


def pieces(seed):
    """What a transfer sends: pieces of all sizes, with pauses, by chance."""
    chance = random.Random(seed)
    for _ in range(chance.randint(0, 20)):
        yield chance.randbytes(chance.choice((1, 60, 3000, 70000, 300000)))
        if chance.random() < 0.3:
            time.sleep(chance.random() * 0.004)


def duplex(c, seed):
    """Sends and reads at once, as an event loop does; the digests of what was sent and of what came."""
    c.setblocking(False)
    sent, came, out, unsent = hashlib.sha256(), hashlib.sha256(), pieces(seed), b''
    sizes, sends, reads = [0, 0], True, True
    while sends or reads:
        if sends and not unsent:
            unsent = next(out, b'')
            sent.update(unsent)
            sizes[0] += len(unsent)
            if not unsent:
                sends = False
                c.shutdown(socket.SHUT_WR)
        if not (reads or unsent):
            continue
        readable, writable, _ = select.select([c] if reads else [], [c] if unsent else [], [], 20)
        if writable:
            unsent = unsent[c.send(unsent) :]
        if readable:
            piece = c.recv(1 << 18)
            reads = piece != b''
            came.update(piece)
            sizes[1] += len(piece)
        if not (readable or writable) and reads:
            raise TimeoutError('%d sent, %d came' % tuple(sizes))
    return [each.digest() + size.to_bytes(8, 'big') for each, size in zip((sent, came), sizes)]


def echo(c):
    while piece := c.recv(65536):
        c.sendall(piece)


def exchange(c):
    """Both ways at once; what was sent and what came is told over another connection."""
    seed = int.from_bytes(read_exactly(c, 4), 'big')
    DIGESTS[seed] = b''.join(duplex(c, seed + 1))


def tell(c):
    seed = int.from_bytes(read_exactly(c, 4), 'big')
    while seed not in DIGESTS:
        time.sleep(0.01)
    c.sendall(DIGESTS[seed])


def never_read(c):
    c.sendall(b'R')
    time.sleep(4)


def digest(c):
    c.sendall(read_all(c))


def slow_digest(c):
    c.sendall(b'R')
    time.sleep(0.5)
    c.sendall(read_all(c, 0.002))


def reset(c):
    read_exactly(c, 1)
    time.sleep(0.2)
    close_by_reset(c)


def close_by_reset(c):
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    c.close()


DIGESTS = {}
SERVERS = {b'e': echo, b'x': exchange, b't': tell, b'z': never_read, b'd': digest, b's': slow_digest, b'r': reset}


def serve(port):
    listener = socket.create_server(('', port), family=socket.AF_INET6, backlog=512, dualstack_ipv6=True)
    while True:
        c, _ = listener.accept()
        threading.Thread(target=serve_one, args=(c,), daemon=True).start()


def serve_one(c):
    try:
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        SERVERS[c.recv(1)](c)
        c.shutdown(socket.SHUT_WR)
    except (OSError, KeyError, EOFError):
        pass
    c.close()


def connect(host, port, mode):
    c = socket.create_connection((host, port))
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    c.sendall(mode)
    return c


def settle(c):
    """After this exchange, what has gone through the ztunnel has arrived."""
    c.sendall(b'?')
    read_exactly(c, 1)
    time.sleep(0.05)


def round_trips(host, port, count):
    c = connect(host, port, b'e')
    times = []
    for _ in range(int(count)):
        start = time.perf_counter()
        c.sendall(b'x' * 64)
        read_exactly(c, 64)
        times.append(time.perf_counter() - start)
    c.shutdown(socket.SHUT_WR)
    rest = c.recv(1)
    times.sort()
    return {'median_us': times[len(times) // 2] * 1e6, 'p99_us': times[int(len(times) * 0.99)] * 1e6, 'rest': len(rest)}


def bulk(host, port, megabytes):
    c = connect(host, port, b'd')
    time.sleep(0.1)
    block, start = b'z' * 65536, time.perf_counter()
    for _ in range(int(megabytes) * 16):
        c.sendall(block)
    c.shutdown(socket.SHUT_WR)
    size = int.from_bytes(read_exactly(c, 40)[32:], 'big')
    return {'bytes': size, 'gbit_s': size * 8 / (time.perf_counter() - start) / 1e9}


def transfers(host, port, count, parallel):
    wrong = []

    def one(seed):
        try:
            c = connect(host, port, b'x')
            c.sendall(seed.to_bytes(4, 'big'))
            sent, came = duplex(c, seed)
            c.close()
            t = connect(host, port, b't')
            t.sendall(seed.to_bytes(4, 'big'))
            if read_exactly(t, 80) != came + sent:
                wrong.append(seed)
        except Exception as error:
            wrong.append([seed, repr(error)])

    seeds = iter(range(0, int(count) * 10, 10))

    def several():
        for seed in seeds:
            one(seed)

    threads = [threading.Thread(target=several) for _ in range(int(parallel))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {'wrong': wrong}


def half_close(host, port, megabytes):
    data = random.Random(7).randbytes(int(megabytes) << 20)
    c = connect(host, port, b's')
    read_exactly(c, 1)
    c.sendall(data)
    c.shutdown(socket.SHUT_WR)
    return {'exact': read_exactly(c, 40) == digest_of(data), 'rest': len(c.recv(1))}


def stuck(host, port):
    """How much a connection takes whose other end never reads."""
    c = connect(host, port, b'z')
    read_exactly(c, 1)
    time.sleep(0.1)
    c.setblocking(False)
    taken, quiet = 0, time.monotonic()
    while time.monotonic() - quiet < 1:
        try:
            taken += c.send(b'z' * 65536)
            quiet = time.monotonic()
        except BlockingIOError:
            time.sleep(0.001)
    return {'taken': taken}


def epoll(host, port, kind):
    """A sender that only tries again when it is told that there is room."""
    c = connect(host, port, b's')
    read_exactly(c, 1)
    c.setblocking(False)
    poll = select.epoll()
    poll.register(c, select.EPOLLOUT | select.EPOLLIN | (select.EPOLLET if kind == 'edge' else 0))
    data, sent, full = random.Random(3).randbytes(24 << 20), 0, 0
    while sent < len(data):
        try:
            while sent < len(data):
                sent += c.send(data[sent : sent + 100000])
        except BlockingIOError:
            full += 1
            if not poll.poll(10):
                return {'hung_at': sent, 'full': full}
    c.shutdown(socket.SHUT_WR)
    c.setblocking(True)
    return {'exact': read_exactly(c, 40) == digest_of(data), 'full': full}


def reset_seen(host, port):
    c = connect(host, port, b'r')
    c.sendall(b'x')
    time.sleep(1)
    try:
        return {'seen': 'end' if c.recv(1) == b'' else 'data'}
    except OSError as error:
        return {'seen': errno.errorcode[error.errno]}


def reset_while_waiting(host, port):
    c = connect(host, port, b'r')
    c.sendall(b'x')
    seen = []
    while not seen or seen[-1] == 'EAGAIN':
        try:
            seen.append('end' if c.recv(1) == b'' else 'data')
        except OSError as error:
            seen.append(errno.errorcode[error.errno])
    return {'seen': seen}


def count_bytes(host, port, size):
    """One connection of exactly so many bytes there (and one, for the mode) and back."""
    c = connect(host, port, b'e')
    settle(c)
    for _ in range(int(size) // 1000):
        c.sendall(b'c' * 1000)
        read_exactly(c, 1000)
    c.shutdown(socket.SHUT_WR)
    return {'rest': len(c.recv(1))}


def same_port(host, port, own, go):
    """
    Connects again from the address and port of a connection that it resets once the file `go` is there; says when the first has been
    answered, when the second has spoken, and then what is echoed to the second.
    """

    def talk(text):
        c = socket.create_connection((host, port), source_address=(own, 20123))
        time.sleep(0.3)  # spliced from its first byte
        c.sendall(b'e' + text)
        return c

    first = talk(b'first')
    read_exactly(first, 5)
    print(json.dumps({'first': True}), flush=True)
    while not os.path.exists(go):
        time.sleep(0.01)
    close_by_reset(first)
    second = talk(b'other')
    print(json.dumps({'second': True}), flush=True)
    second.settimeout(5)
    return {'echo': read_exactly(second, 5).decode()}


def hold(host, port):
    """Sends and receives until it is cut; says when it has begun, and then how it ended, and when."""
    c = connect(host, port, b'e')
    settle(c)
    print(json.dumps({'holding': True}), flush=True)
    c.settimeout(5)
    try:
        while True:
            c.sendall(b'x' * 100)
            read_exactly(c, 100)
            time.sleep(0.005)
    except (OSError, EOFError) as error:
        return {'ended': type(error).__name__, 'at': time.time()}


ACTIONS = {
    'round-trips': round_trips,
    'bulk': bulk,
    'transfers': transfers,
    'half-close': half_close,
    'stuck': stuck,
    'epoll': epoll,
    'reset-seen': reset_seen,
    'reset-while-waiting': reset_while_waiting,
    'count': count_bytes,
    'same-port': same_port,
    'hold': hold,
}

if sys.argv[1] == 'server':
    serve(int(sys.argv[2]))
else:
    print(json.dumps(ACTIONS[sys.argv[1]](sys.argv[2], int(sys.argv[3]), *sys.argv[4:])), flush=True)
