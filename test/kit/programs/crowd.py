#!/usr/bin/python3
"""
Many connections at once.

  crowd.py serve PORT...   echoes on each of the ports until it is killed
  crowd.py call JSON       {"targets": [[host, port]...], "count", "bind_from"?: first source port, "seconds"?}: opens that many
                           connections, in turn to each target, sends a line on each and waits for its echo, with all of them
                           open; prints {"answered", "errors": {name: how many}} as JSON. At most 500 are being opened at a time.
"""
import errno
import json
import select
import socket
import sys
import time

OPENING = 500


def serve(ports):
    poll = select.epoll()
    listeners, connections = {}, {}
    for port in ports:
        server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
        server.setblocking(False)
        listeners[server.fileno()] = server
        poll.register(server, select.EPOLLIN)
    print("up", flush=True)
    while True:
        for fd, _events in poll.poll():
            if fd in listeners:
                connection, _address = listeners[fd].accept()
                connections[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
                continue
            try:
                data = connections[fd].recv(4096)
                connections[fd].send(data)
            except OSError:
                data = b""
            if not data:
                poll.unregister(fd)
                connections.pop(fd).close()


class Crowd:
    def __init__(self, wanted):
        self.targets, self.left = wanted["targets"], wanted["count"]
        self.bind_from = wanted.get("bind_from")
        self.deadline = time.monotonic() + wanted.get("seconds", 60)
        self.poll, self.sockets = select.epoll(), {}
        self.opening, self.opened, self.answered, self.errors = set(), 0, 0, {}

    def fail(self, code):
        name = errno.errorcode.get(code, str(code))
        self.errors[name] = self.errors.get(name, 0) + 1

    def open_one(self):
        host, port = self.targets[self.opened % len(self.targets)]
        self.opened += 1
        self.left -= 1
        client = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        client.setblocking(False)
        try:
            if self.bind_from is not None:
                client.bind(("::" if ":" in host else "0.0.0.0", self.bind_from + self.opened))
            code = client.connect_ex((host, port))
        except OSError as error:
            code = error.errno
        if code not in (0, errno.EINPROGRESS):
            client.close()
            return self.fail(code)
        fd = client.fileno()
        self.sockets[fd] = client
        self.opening.add(fd)
        self.poll.register(fd, select.EPOLLOUT)

    def proceed(self, fd):
        client = self.sockets[fd]
        try:
            if code := client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, "")
            if fd in self.opening and self.poll.modify(fd, select.EPOLLIN) is None and client.send(b"hello\n"):
                self.opening.discard(fd)
                return
            if not client.recv(64):
                raise OSError(errno.EPIPE, "")
            self.answered += 1
            self.poll.unregister(fd)
        except OSError as error:
            self.opening.discard(fd)
            self.fail(error.errno)
            self.poll.unregister(fd)
            self.sockets.pop(fd).close()

    def run(self):
        while self.answered + sum(self.errors.values()) < self.opened + self.left:
            unanswered = self.opened - self.answered - sum(self.errors.values())
            while self.left > 0 and unanswered < OPENING:
                self.open_one()
                unanswered += 1
            for fd, _events in self.poll.poll(1):
                self.proceed(fd)
            if time.monotonic() > self.deadline:
                self.errors["timeout"] = self.opened - self.answered - sum(self.errors.values())
                break
        return {"answered": self.answered, "errors": self.errors}


if sys.argv[1] == "serve":
    serve([int(port) for port in sys.argv[2:]])
else:
    print(json.dumps(Crowd(json.loads(sys.argv[2])).run()))
