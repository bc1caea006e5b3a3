"""
As much of io_uring as connects and sends, by bare system calls: include/uapi/linux/io_uring.h. One request at a time.
"""
import ctypes
import mmap
import os
import socket
import struct

SETUP, ENTER = 425, 426
OFFSET_SQ, OFFSET_CQ, OFFSET_SQES = 0, 0x8000000, 0x10000000
OP_CONNECT, OP_SEND, GETEVENTS = 16, 26, 1
libc = ctypes.CDLL(None, use_errno=True)


def system_call(*arguments):
    result = libc.syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "io_uring")
    return result


class Ring:
    def __enter__(self):
        parameters = ctypes.create_string_buffer(120)
        self.fd = system_call(SETUP, 4, parameters)
        words = struct.unpack_from("10I", parameters.raw, 40)
        self.sq_head, self.sq_tail, self.sq_mask, _entries, _flags, _dropped, self.sq_array = words[:7]
        cq = struct.unpack_from("10I", parameters.raw, 80)
        self.cq_head, self.cq_tail, self.cq_mask, _entries, _overflow, self.cqes = cq[:6]
        self.sq = mmap.mmap(self.fd, 4096, offset=OFFSET_SQ)
        self.cq = mmap.mmap(self.fd, 4096, offset=OFFSET_CQ)
        self.sqes = mmap.mmap(self.fd, 4096, offset=OFFSET_SQES)
        return self

    def __exit__(self, *_error):
        os.close(self.fd)

    def submit(self, operation, fd, address, length, offset=0):
        tail = struct.unpack_from("I", self.sq, self.sq_tail)[0]
        index = tail & struct.unpack_from("I", self.sq, self.sq_mask)[0]
        entry = struct.pack("<BBHiQQIIQ", operation, 0, 0, fd, offset, address, length, 0, 1)
        self.sqes[index * 64 : index * 64 + 64] = entry.ljust(64, b"\0")
        struct.pack_into("I", self.sq, self.sq_array + 4 * index, index)
        struct.pack_into("I", self.sq, self.sq_tail, tail + 1)
        system_call(ENTER, self.fd, 1, 1, GETEVENTS, None, 0)
        head = struct.unpack_from("I", self.cq, self.cq_head)[0]
        at = self.cqes + 16 * (head & struct.unpack_from("I", self.cq, self.cq_mask)[0])
        result = struct.unpack_from("<Qi", self.cq, at)[1]
        struct.pack_into("I", self.cq, self.cq_head, head + 1)
        if result < 0:
            raise OSError(-result, "io_uring")
        return result

    def connect(self, fd, family, host, port):
        ip = socket.inet_pton(family, host)
        head = struct.pack("=H", family) + struct.pack("!H", port)
        address = head + (ip + b"\0" * 8 if family == socket.AF_INET else b"\0" * 4 + ip + b"\0" * 4)
        held = ctypes.create_string_buffer(address, len(address))
        self.submit(OP_CONNECT, fd, ctypes.addressof(held), 0, len(address))

    def send(self, fd, data):
        held = ctypes.create_string_buffer(data, len(data))
        self.submit(OP_SEND, fd, ctypes.addressof(held), len(data))
