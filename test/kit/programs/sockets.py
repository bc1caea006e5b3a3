#!/usr/bin/python3
"""
The two ends of a connection, with what each sees of the other.

  sockets.py serve PORT        a dual-stack server: says whom it sees (a line of JSON), echoes until the end of its input,
                               then says "end" and closes
  sockets.py call JSON         {"host", "port", "kind"?: "plain" | "mapped" | "bound" | "device", "source"?}: connects, reads
                               that line, sends "ping", closes its half, reads the rest; prints what it saw as JSON
  sockets.py ask JSON          {"resolvers", "how": "connected" | "together"}: a datagram to port 53 of each, by a connected socket
                               each or all by one that is not; prints [address, answer] of each answer as JSON
"""
import errno
import json
import socket
import sys
import threading


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
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    if kind == "bound":
        client.bind((wanted["source"], 0))
    return client, "::ffff:" + host if kind == "mapped" else host


def call(wanted):
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


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    asked = json.loads(sys.argv[2])
    if sys.argv[1] == "call":
        result = [call(wanted) for wanted in asked]
    elif asked["how"] == "together":
        result = ask_together(asked["resolvers"])
    else:
        result = [ask_each(resolver) for resolver in asked["resolvers"]]
    print(json.dumps(result))
