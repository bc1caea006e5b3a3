#!/usr/bin/python3
"""
Ways for a process to try to get round its mesh: bypass.py JSON, a list of {"way", "host", "port", "own", "via"?}: `own` is the
pod's address of the same family, `via` (source routes) who is to get the packet. What is sent says `round-the-mesh-PORT`. Prints
what came of each as JSON: the name of an error, `sent`, or `answered`.
"""
import errno
import fcntl
import json
import socket
import struct
import sys

import io_uring

RAW_PORT = 44444  # whose packets are made by hand
MSG_FASTOPEN, IPPROTO_MPTCP, IPPROTO_UDPLITE, IPPROTO_SCTP = 0x20000000, 262, 136, 132
SYN, PUSH_ACK, BARE_ACK = 0x02, 0x18, 0x10
IP_TRANSPARENT, IPV6_TRANSPARENT, IP_RETOPTS, SO_MARK = 19, 75, 7, 36
IPV6_RTHDR, IPV6_DSTOPTS, IPV6_HOPOPTS = 57, 59, 54


def marker(a):
    return b"round-the-mesh-%d;" % a["port"]


def family_of(ip):
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def finish(a, client):
    client.sendall(marker(a))
    return "answered" if client.recv(64) else "sent"


def stream(host, protocol=0):
    client = socket.socket(family_of(host), socket.SOCK_STREAM, protocol)
    client.settimeout(1)
    return client


def connect(a, protocol=0, prepare=lambda client: None):
    with stream(a["host"], protocol) as client:
        prepare(client)
        client.connect((a["host"], a["port"]))
        return finish(a, client)


def mapped(a):
    with socket.socket(socket.AF_INET6) as client:
        client.settimeout(1)
        client.connect(("::ffff:" + a["host"], a["port"]))
        return finish(a, client)


def fast_open(a):
    with stream(a["host"]) as client:
        client.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            client.setsockopt(socket.SOL_SOCKET, option, struct.pack("@qq", 1, 0))
        client.sendto(marker(a), MSG_FASTOPEN, (a["host"], a["port"]))
        return "answered" if client.recv(64) else "sent"


def fast_open_at_connect(a):
    return connect(a, prepare=lambda client: client.setsockopt(socket.IPPROTO_TCP, 30, 1))


def again(a):
    """A socket that was connected to what is left alone, and is taken back from there."""
    own = socket.create_server((a["own"], 0), family=family_of(a["own"]))
    with own, stream(a["host"]) as client:
        client.connect(own.getsockname()[:2])
        libc_disconnect(client)
        client.connect((a["host"], a["port"]))
        return finish(a, client)


def libc_disconnect(client):
    import ctypes

    unspecified = ctypes.create_string_buffer(16)
    if ctypes.CDLL(None, use_errno=True).connect(client.fileno(), unspecified, 16) != 0:
        raise OSError(ctypes.get_errno(), "")


def by_io_uring(a):
    with socket.socket(family_of(a["host"])) as client, io_uring.Ring() as ring:
        ring.connect(client.fileno(), family_of(a["host"]), a["host"], a["port"])
        ring.send(client.fileno(), marker(a))
        client.settimeout(1)
        return "answered" if client.recv(64) else "sent"


def io_uring_datagram(a):
    with socket.socket(family_of(a["host"]), socket.SOCK_DGRAM) as client, io_uring.Ring() as ring:
        ring.connect(client.fileno(), family_of(a["host"]), a["host"], a["port"])
        ring.send(client.fileno(), marker(a))
        return "sent"


def marked(client):
    client.setsockopt(socket.SOL_SOCKET, SO_MARK, 0x539)


def on_device(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")


def bound_to(a, ip, port):
    return connect(a, prepare=lambda client: client.bind((ip, port)))


def transparent(a):
    """From an address that is not the pod's own."""
    def prepare(client):
        is_ipv6 = client.family == socket.AF_INET6
        client.setsockopt(41 if is_ipv6 else 0, IPV6_TRANSPARENT if is_ipv6 else IP_TRANSPARENT, 1)
        client.bind(("fd00::77" if is_ipv6 else "10.244.77.77", 0))

    return connect(a, prepare=prepare)


def loose_route(via):
    return struct.pack("!BBBB4sB", 131, 7, 4, 0, socket.inet_aton(via), 0)[:3] + socket.inet_aton(via) + b"\0"


def source_routed(a):
    """Dials itself, by way of somebody else."""
    return connect(a, prepare=lambda client: client.setsockopt(0, socket.IP_OPTIONS, loose_route(a["via"])))


def source_routed_datagram(a):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendmsg([marker(a)], [(0, IP_RETOPTS, loose_route(a["via"]))], 0, (a["host"], a["port"]))
        return "sent"


def segment_route(via, last):
    addresses = socket.inet_pton(socket.AF_INET6, last) + socket.inet_pton(socket.AF_INET6, via)
    return struct.pack("!BBBBBBH", 0, 4, 4, 1, 1, 0, 0) + addresses


def segment_routed(a):
    route = segment_route(a["via"], a["host"])
    return connect(a, prepare=lambda client: client.setsockopt(41, IPV6_RTHDR, route))


def with_extension(option):
    padding = struct.pack("!BBBBI", 0, 0, 1, 4, 0)
    return lambda a: connect(a, prepare=lambda client: client.setsockopt(41, option, padding))


def datagram(a, protocol=0, kind=socket.SOCK_DGRAM):
    with socket.socket(family_of(a["host"]), kind, protocol) as client:
        client.settimeout(1)
        client.connect((a["host"], a["port"]))
        client.send(marker(a))
        return "answered" if client.recv(64) else "sent"


def unconnected_datagram(a, size=1):
    with socket.socket(family_of(a["host"]), socket.SOCK_DGRAM) as client:
        client.sendto(marker(a) * size, (a["host"], a["port"]))
        return "sent"


def datagram_with_source(a):
    with socket.socket(family_of(a["host"]), socket.SOCK_DGRAM) as client:
        index = socket.if_nametoindex("eth0")
        if client.family == socket.AF_INET:
            level, kind = 0, socket.IP_PKTINFO if hasattr(socket, "IP_PKTINFO") else 8
            info = struct.pack("@I4s4s", index, socket.inet_aton(a["own"]), b"\0" * 4)
        else:
            level, kind = 41, socket.IPV6_PKTINFO
            info = struct.pack("@16sI", socket.inet_pton(socket.AF_INET6, a["own"]), index)
        client.sendmsg([marker(a)], [(level, kind, info)], 0, (a["host"], a["port"]))
        return "sent"


def datagram_to_own_first(a):
    """Connected to its own address, and sent elsewhere."""
    with socket.socket(family_of(a["host"]), socket.SOCK_DGRAM) as client:
        client.connect((a["own"], 9))
        client.sendto(marker(a), (a["host"], a["port"]))
        return "sent"


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def packed(ip):
    return socket.inet_pton(family_of(ip), ip)


def with_checksum(a, protocol, segment, at):
    pseudo = packed(a["own"]) + packed(a["host"]) + struct.pack("!IHBB", len(segment), 0, 0, protocol)
    return segment[:at] + struct.pack("!H", checksum(pseudo + segment)) + segment[at + 2 :]


def tcp_segment(a, flags, payload):
    header = struct.pack("!HHIIBBHHH", RAW_PORT, a["port"], 1000, 0 if flags == SYN else 1, 0x50, flags, 65535, 0, 0)
    return with_checksum(a, 6, header + payload, 16)


def udp_segment(a, payload):
    return with_checksum(a, 17, struct.pack("!HHHH", RAW_PORT, a["port"], 8 + len(payload), 0) + payload, 6)


def ip_packet(a, protocol, payload, fragment=0):
    if ":" in a["host"]:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + packed(a["own"]) + packed(a["host"]) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0x77, fragment, 64, protocol, 0)
    head += packed(a["own"]) + packed(a["host"])
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def send_raw(a, packet):
    with socket.socket(family_of(a["host"]), socket.SOCK_RAW, 255) as raw:
        raw.sendto(packet, (a["host"], 0))
    return "sent"


def send_raw_transport(a, protocol, payload):
    """The kernel makes the IP header."""
    with socket.socket(family_of(a["host"]), socket.SOCK_RAW, protocol) as raw:
        raw.sendto(payload, (a["host"], 0))
    return "sent"


def gateway_mac():
    with open("/proc/net/arp", encoding="latin1") as table:
        rows = [row.split() for row in table][1:]
    return bytes.fromhex(rows[0][3].replace(":", "")) if rows else b"\xff" * 6


def send_frame(a, packet, kind=socket.SOCK_DGRAM):
    ether_type = 0x86DD if ":" in a["host"] else 0x0800
    with socket.socket(socket.AF_PACKET, kind) as frames:
        to = ("eth0", ether_type, 0, 0, gateway_mac())
        if kind == socket.SOCK_RAW:
            own = fcntl.ioctl(frames.fileno(), 0x8927, struct.pack("256s", b"eth0"))[18:24]
            packet = gateway_mac() + own + struct.pack("!H", ether_type) + packet
        frames.sendto(packet, to)
    return "sent"


def frame_past_queue(a):
    """Past the queue of the device, and so past what is attached there."""
    packet = ip_packet(a, 6, tcp_segment(a, SYN, marker(a)))
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as frames:
        frames.setsockopt(263, 20, 1)  # SOL_PACKET, PACKET_QDISC_BYPASS
        frames.sendto(packet, ("eth0", 0x86DD if ":" in a["host"] else 0x0800, 0, 0, gateway_mac()))
    return "sent"


def frame_of_type(a, ether_type, head=b""):
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as frames:
        packet = ip_packet(a, 6, tcp_segment(a, SYN, marker(a)))
        frames.sendto(head + packet, ("eth0", ether_type, 0, 0, gateway_mac()))
    return "sent"


def fragments(a, protocol, segment):
    """In two pieces; nobody sees flags or ports in the second."""
    send_raw(a, ip_packet(a, protocol, segment[:16], 0x2000))
    return send_raw(a, ip_packet(a, protocol, segment[16:], 2))


def fragmented_ipv6(a):
    segment = tcp_segment(a, SYN, marker(a))
    header = struct.pack("!BBHI", 6, 0, 0, 0x77)  # an atomic fragment: whole, behind an extension header
    return send_raw(a, ip_packet(a, 44, header + segment))


def behind_options_ipv6(a):
    options = struct.pack("!BBBBI", 6, 0, 1, 4, 0)
    return send_raw(a, ip_packet(a, 60, options + tcp_segment(a, SYN, marker(a))))


WAYS = {
    "connect": connect,
    "mark": lambda a: connect(a, prepare=marked),
    "mptcp": lambda a: connect(a, IPPROTO_MPTCP),
    "fast_open": fast_open,
    "fast_open_at_connect": fast_open_at_connect,
    "mapped": mapped,
    "device": lambda a: connect(a, prepare=on_device),
    "io_uring": by_io_uring,
    "again": again,
    "bound": lambda a: bound_to(a, a["own"], 0),
    "bound_port": lambda a: bound_to(a, a["own"], 21212),
    "loopback_source": lambda a: bound_to(a, "::1" if ":" in a["host"] else "127.0.0.1", 0),
    "alias_source": lambda a: bound_to(a, "127.0.0.6", 0),
    "transparent": transparent,
    "mesh_port_outbound": lambda a: bound_to(a, a["own"], 15001),
    "mesh_port_inbound": lambda a: bound_to(a, a["own"], 15006),
    "mesh_port_tunnel": lambda a: bound_to(a, a["own"], 15008),
    "mesh_port_dns": lambda a: bound_to(a, a["own"], 15053),
    "source_routed": source_routed,
    "source_routed_datagram": source_routed_datagram,
    "segment_routed": segment_routed,
    "destination_options": with_extension(IPV6_DSTOPTS),
    "hop_options": with_extension(IPV6_HOPOPTS),
    "datagram": datagram,
    "datagram_unconnected": unconnected_datagram,
    "datagram_large": lambda a: unconnected_datagram(a, 300),
    "datagram_source": datagram_with_source,
    "datagram_own_first": datagram_to_own_first,
    "datagram_io_uring": io_uring_datagram,
    "udplite": lambda a: datagram(a, IPPROTO_UDPLITE),
    "sctp": lambda a: connect(a, IPPROTO_SCTP),
    "raw_syn": lambda a: send_raw(a, ip_packet(a, 6, tcp_segment(a, SYN, b""))),
    "raw_syn_data": lambda a: send_raw(a, ip_packet(a, 6, tcp_segment(a, SYN, marker(a)))),
    "raw_data": lambda a: send_raw(a, ip_packet(a, 6, tcp_segment(a, PUSH_ACK, marker(a)))),
    "raw_transport_syn": lambda a: send_raw_transport(a, 6, tcp_segment(a, SYN, marker(a))),
    "raw_datagram": lambda a: send_raw(a, ip_packet(a, 17, udp_segment(a, marker(a)))),
    "raw_sctp": lambda a: send_raw(a, ip_packet(a, IPPROTO_SCTP, marker(a))),
    "raw_unknown": lambda a: send_raw(a, ip_packet(a, 253, marker(a))),
    "raw_fragments": lambda a: fragments(a, 6, tcp_segment(a, SYN, marker(a))),
    "raw_datagram_fragments": lambda a: fragments(a, 17, udp_segment(a, marker(a) * 3)),
    "raw_fragment_ipv6": fragmented_ipv6,
    "raw_options_ipv6": behind_options_ipv6,
    "frame_syn": lambda a: send_frame(a, ip_packet(a, 6, tcp_segment(a, SYN, marker(a)))),
    "frame_data": lambda a: send_frame(a, ip_packet(a, 6, tcp_segment(a, PUSH_ACK, marker(a)))),
    "frame_datagram": lambda a: send_frame(a, ip_packet(a, 17, udp_segment(a, marker(a)))),
    "frame_whole": lambda a: send_frame(a, ip_packet(a, 6, tcp_segment(a, SYN, marker(a))), socket.SOCK_RAW),
    "frame_past_queue": frame_past_queue,
    "frame_vlan": lambda a: frame_of_type(a, 0x8100, struct.pack("!HH", 0, 0x86DD if ":" in a["host"] else 0x0800)),
    "frame_unknown": lambda a: frame_of_type(a, 0x88B5),
    "raw_icmp": lambda a: send_raw(a, ip_packet(a, 58 if ":" in a["host"] else 1, b"\x08\0\0\0" + marker(a))),
    "raw_igmp": lambda a: send_raw(a, ip_packet(a, 2, marker(a))),
    "raw_bare_ack": lambda a: send_raw(a, ip_packet(a, 6, tcp_segment(a, BARE_ACK, b""))),
    "frame_fragment": lambda a: send_frame(a, ip_packet(a, 6, tcp_segment(a, SYN, marker(a))[16:], 2)),
}


def attempt(a):
    try:
        return WAYS[a["way"]](a)
    except socket.timeout:
        return "timeout"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


print(json.dumps([attempt(one) for one in json.loads(sys.argv[1])]))
