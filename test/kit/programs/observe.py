#!/usr/bin/python3
"""
Writes down what arrives from pods, in their node's network namespace: observe.py PREFIX, of the devices' names. A line of JSON
for each packet: {"from", "to", "protocol", "fromPort", "toPort", "flags", "isFragment", "marker"}. `protocol` and ports are those
behind IPv6 extension headers, -1 for what is not IP; `marker` is the number in `round-the-mesh-NUMBER`, where the packet has that.
"""
import json
import re
import socket
import struct
import sys

EXTENSIONS = {0, 43, 44, 60}
MARKER = re.compile(rb"round-the-mesh-(\d+);")


def ipv4(packet):
    size, fragment, protocol = (packet[0] & 15) * 4, struct.unpack("!H", packet[6:8])[0] & 0x3FFF, packet[9]
    ips = [socket.inet_ntop(socket.AF_INET, packet[at : at + 4]) for at in (12, 16)]
    return ips, protocol, packet[size:] if fragment & 0x1FFF == 0 else b"", fragment != 0


def ipv6(packet):
    ips = [socket.inet_ntop(socket.AF_INET6, packet[at : at + 16]) for at in (8, 24)]
    protocol, rest, is_fragment = packet[6], packet[40:], False
    while protocol in EXTENSIONS and len(rest) >= 8:
        is_fragment = is_fragment or protocol == 44
        protocol, rest = rest[0], rest[8 if protocol == 44 else 8 * (rest[1] + 1) :]
    return ips, protocol, rest, is_fragment


PARSERS = {0x0800: ipv4, 0x86DD: ipv6}


def describe(packet, ether_type):
    if ether_type in PARSERS and len(packet) >= (20 if ether_type == 0x0800 else 40):
        ips, protocol, segment, is_fragment = PARSERS[ether_type](packet)
    else:
        ips, protocol, segment, is_fragment = ["", ""], -1, b"", False
    has_ports = protocol in (6, 17, 132, 136) and len(segment) >= 4
    ports = struct.unpack("!HH", segment[:4]) if has_ports else (0, 0)
    found = MARKER.search(packet)
    return {
        "from": ips[0],
        "to": ips[1],
        "protocol": protocol,
        "fromPort": ports[0],
        "toPort": ports[1],
        "flags": segment[13] if protocol == 6 and len(segment) > 13 else 0,
        "isFragment": is_fragment,
        "marker": int(found.group(1)) if found else 0,
    }


with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as frames:
    frames.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
    print("up", flush=True)
    while True:
        packet, (device, ether_type, kind, _hardware, _address) = frames.recvfrom(65536)
        if device.startswith(sys.argv[1]) and kind != socket.PACKET_OUTGOING:
            print(json.dumps(describe(packet, ether_type)), flush=True)
