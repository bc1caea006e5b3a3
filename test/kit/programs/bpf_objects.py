#!/usr/bin/python3
"""
What of eBPF is in the kernel, by bpf(2) alone (include/uapi/linux/bpf.h): there is no tool for it everywhere.

  bpf_objects.py pinned DIRECTORY   ids of everything that is pinned below, with the programs of links and the maps of programs
  bpf_objects.py alive JSON         of such a list, what there is still; ids are not given out again soon

Both print {"kind", "id", "name"} as JSON.
"""
import ctypes
import json
import os
import struct
import sys

BPF = 321  # x86-64
OBJ_GET, INFO = 7, 15
BY_ID = {"prog": 13, "map": 14, "link": 30}
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    held = ctypes.create_string_buffer(attributes, 128)
    result = libc.syscall(BPF, command, held, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf {command}")
    return result


def info_of(fd, size=256, head=b""):
    held = ctypes.create_string_buffer(head, size)
    bpf(INFO, struct.pack("=IIQ", fd, size, ctypes.addressof(held)))
    return held.raw


def text(data):
    return data.split(b"\0", 1)[0].decode()


def describe(fd):
    """The object and, for links and programs, what they hold."""
    kind = os.readlink(f"/proc/self/fd/{fd}").removeprefix("anon_inode:").strip("[]").replace("bpf-", "").replace("bpf_", "")
    info = info_of(fd)
    number = struct.unpack_from("=I", info, 4)[0]
    if kind == "link":
        program = struct.unpack_from("=I", info, 8)[0]
        return [{"kind": kind, "id": number, "name": ""}, *by_id("prog", program)]
    if kind == "map":
        return [{"kind": kind, "id": number, "name": text(info[24:40])}]
    count = struct.unpack_from("=I", info, 52)[0]
    ids = (ctypes.c_uint32 * max(count, 1))()
    head = b"\0" * 52 + struct.pack("=IQ", count, ctypes.addressof(ids))
    info_of(fd, head=head)
    maps = [found for one in ids[:count] for found in by_id("map", one)]
    return [{"kind": kind, "id": number, "name": text(info[64:80])}, *maps]


def by_id(kind, number):
    try:
        fd = bpf(BY_ID[kind], struct.pack("=I", number))
    except OSError:
        return []
    found = describe(fd)
    os.close(fd)
    return found


def pinned(directory):
    found = {}
    for folder, _folders, files in os.walk(directory):
        for name in files:
            path = os.path.join(folder, name).encode() + b"\0"
            held = ctypes.create_string_buffer(path)
            try:
                fd = bpf(OBJ_GET, struct.pack("=Q", ctypes.addressof(held)))
            except OSError:
                continue
            for one in describe(fd):
                found[one["kind"], one["id"]] = one
            os.close(fd)
    return list(found.values())


if sys.argv[1] == "pinned":
    print(json.dumps(pinned(sys.argv[2])))
else:
    print(json.dumps([one for one in json.loads(sys.argv[2]) if by_id(one["kind"], one["id"])]))
