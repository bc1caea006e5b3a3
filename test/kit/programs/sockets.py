#!/usr/bin/python3
"""
The two ends of a connection, with what each sees of the other.

  sockets.py serve PORT        a dual-stack server: says whom it sees (a line of JSON), echoes until the end of its input,
                               then says "end" and closes
  sockets.py call JSON         {"host", "port", "kind"?: "plain" | "mapped" | "bound" | "device", "source"?}: connects, reads
                               that line, sends "ping", closes its half, reads the rest; prints what it saw as JSON
  sockets.py ask JSON          {"resolvers", "how": "connected" | "together"}: a datagram to port 53 of each, by a connected socket
                               each or all by one that is not; prints [address, answer] of each answer as JSON
  sockets.py resolve JSON      [{"server", "transport": "udp" | "tcp", "type": 1 | 28}, …] with "name" each: asks a resolver as a DNS
                               client does; prints the addresses of each answer, or [error], as JSON
"""
import errno
import json
import os
import socket
import struct
import sys
import threading

NOBODY = 65534


def describe(address):
    ip, port = address[0], address[1]
    return {"ip": ip.removeprefix("::ffff:"), "port": port}


def serve_one(connection, accepted):
    with connection:
        seen = {
            "accepted": describe(accepted),
            "peer": describe(connection.getpeername()),
            "local": describe(connection.getsockname()),
        }
        connection.sendall(json.dumps(seen).encode() + b"\n")
        while data := connection.recv(65536):
            connection.sendall(data)
        connection.sendall(b"end")


def serve(port):
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024) as server:
        print("up", flush=True)
        while True:
            connection, accepted = server.accept()
            threading.Thread(target=serve_one, args=(connection, accepted), daemon=True).start()


def open_socket(wanted):
    host, kind = wanted["host"], wanted.get("kind", "plain")
    is_ipv6 = ":" in host or kind == "mapped"
    client = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET)
    client.settimeout(5)
    if kind == "device":
        # Whoever has no CAP_NET_RAW can bind a socket to a device, but not take it off again.
        os.seteuid(NOBODY)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    if kind == "bound":
        client.bind((wanted["source"], 0))
    return client, "::ffff:" + host if kind == "mapped" else host


def call(wanted):
    os.seteuid(os.getuid())
    client, host = open_socket(wanted)
    with client:
        try:
            client.connect((host, wanted["port"]))
            stream = client.makefile("rb")
            line = stream.readline()
            if not line:
                return {"server": None}
            server = json.loads(line)
            seen = {"peer": describe(client.getpeername()), "local": describe(client.getsockname())}
            client.sendall(b"ping")
            client.shutdown(socket.SHUT_WR)
            return {**seen, "server": server, "reply": stream.read().decode()}
        except OSError as error:
            return {"error": errno.errorcode.get(error.errno, str(error))}


def answer_of(client):
    try:
        data, address = client.recvfrom(4096)
        return [address[0], data.decode()]
    except OSError as error:
        return ["", errno.errorcode.get(error.errno, str(error))]


def open_datagrams(resolver):
    client = socket.socket(socket.AF_INET6 if ":" in resolver else socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(3)
    return client


def ask_each(resolver):
    with open_datagrams(resolver) as client:
        client.connect((resolver, 53))
        client.send(b"question")
        return answer_of(client)


def ask_together(resolvers):
    with open_datagrams(resolvers[0]) as client:
        for resolver in resolvers:
            client.sendto(b"question", (resolver, 53))
        return [answer_of(client) for _ in resolvers]


def dns_query(name, kind):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">6H", 0x1234, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", kind, 1)


def addresses_in(message, kind):
    """Of answers whose names are compressed, or the question's own."""
    count, position = struct.unpack(">H", message[6:8])[0], 12
    skip_name = lambda at: at + 2 if message[at] & 0xC0 else (at + 1 if message[at] == 0 else skip_name(at + 1 + message[at]))
    position = skip_name(position) + 4
    found = []
    for _ in range(count):
        position = skip_name(position)
        answered, _class, _ttl, size = struct.unpack(">2HIH", message[position : position + 10])
        position += 10
        if answered == kind:
            family = socket.AF_INET if kind == 1 else socket.AF_INET6
            found.append(socket.inet_ntop(family, message[position : position + size]))
        position += size
    return found


def resolve(wanted):
    family = socket.AF_INET6 if ":" in wanted["server"] else socket.AF_INET
    is_tcp = wanted["transport"] == "tcp"
    query = dns_query(wanted["name"], wanted["type"])
    with socket.socket(family, socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        try:
            client.connect((wanted["server"], 53))
            client.sendall(struct.pack(">H", len(query)) + query if is_tcp else query)
            if not is_tcp:
                return addresses_in(client.recv(4096), wanted["type"])
            stream = client.makefile("rb")
            size = struct.unpack(">H", stream.read(2))[0]
            return addresses_in(stream.read(size), wanted["type"])
        except OSError as error:
            return [errno.errorcode.get(error.errno, str(error))]


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    asked = json.loads(sys.argv[2])
    if sys.argv[1] == "call":
        result = [call(wanted) for wanted in asked]
    elif sys.argv[1] == "resolve":
        result = [resolve(wanted) for wanted in asked]
    elif asked["how"] == "together":
        result = ask_together(asked["resolvers"])
    else:
        result = [ask_each(resolver) for resolver in asked["resolvers"]]
    print(json.dumps(result))
