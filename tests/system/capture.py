#!/usr/bin/python3
"""Who answers for an address: reads, on the clients' host, the frames that come from it, and tells at the end from which
hosts they came. One line of JSON on standard output when standard input ends or says something: runs of frames of one
sender, in the order in which they came: [MAC, first, last (s, CLOCK_MONOTONIC), {kind: frames}, {kind: first}].

    capture.py INTERFACE ADDRESS

Kinds: data (TCP with payload), ack (TCP without), rst, arp (ARP or neighbour advertisements that claim the address)."""
import collections
import ctypes
import ipaddress
import json
import select
import socket
import struct
import sys
import time

SO_ATTACH_FILTER = 26
ETH_P_ALL = 3
PACKET_STATISTICS = 6
LD_B, LD_H, LD_W, JEQ, RET = 0x30, 0x28, 0x20, 0x15, 0x06  # classic BPF: load at an offset, jump if equal, return


def program(address):
    """Frames from the address, ARP of it, and all neighbour advertisements: 128 bytes of each, nothing else."""
    words = struct.unpack(f"!{len(address.packed) // 4}I", address.packed)
    same = [line for k, w in enumerate(words) for line in ((LD_W, 26 - 4 * (len(words) > 1) + 4 * k), (JEQ, w, None, "no"))]
    if address.version == 4:
        lines = [(LD_H, 12), (JEQ, 0x806, None, "ip"), (LD_W, 28), (JEQ, words[0], "yes", "no"),
                 "ip", (JEQ, 0x800, None, "no"), *same]
    else:
        lines = [(LD_H, 12), (JEQ, 0x86dd, None, "no"), (LD_B, 20), (JEQ, 58, None, "from"), (LD_B, 54),
                 (JEQ, 136, "yes", "from"), "from", *same]
    lines += ["yes", (RET, 128), "no", (RET, 0)]
    at, code = {}, []
    for line in lines:  # a word is where what follows it stands; None is the next line
        if isinstance(line, str):
            at[line] = len(code)
        else:
            code.append(line)
    return [(op, *(at.get(to, k + 1) - k - 1 for to in jumps), value) if jumps else (op, 0, 0, value)
            for k, (op, value, *jumps) in enumerate(code)]


def attach(s, code):
    data = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *c) for c in code))
    s.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(code), ctypes.addressof(data)))


def kind_of(frame, address):
    """None: not of this address after all"""
    ether = frame[12:14]
    if ether == b"\x08\x06":
        return "arp"
    if ether == b"\x08\x00":
        protocol, at, end = frame[23], 14 + 4 * (frame[14] & 15), 14 + struct.unpack_from("!H", frame, 16)[0]
    else:
        protocol, at, end = frame[20], 54, 54 + struct.unpack_from("!H", frame, 18)[0]
        if protocol == 58 and frame[54] == 136:
            return "arp" if frame[62:78] == address.packed else None
    if protocol != 6:
        return "other"
    if frame[at + 13] & 4:
        return "rst"
    return "data" if end > at + 4 * (frame[at + 12] >> 4) else "ack"


def main():
    interface, address = sys.argv[1], ipaddress.ip_address(sys.argv[2])
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    attach(s, program(address))
    s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    s.bind((interface, ETH_P_ALL))
    print("listening", flush=True)
    runs, end = [], None
    while end is None or time.monotonic() < end:
        ready = select.select([s, sys.stdin] if end is None else [s], [], [], None if end is None else 0)[0]
        if s in ready:
            frame, (_, _, packet_type, _, _) = s.recvfrom(128)
            if packet_type != socket.PACKET_OUTGOING and (kind := kind_of(frame, address)):
                mac, now = frame[6:12].hex(":"), time.monotonic()
                if not runs or runs[-1][0] != mac:
                    runs.append([mac, now, now, collections.Counter(), {}])
                runs[-1][2] = now
                runs[-1][3][kind] += 1
                runs[-1][4].setdefault(kind, now)
        elif not ready:
            break  # all is read
        if end is None and sys.stdin in ready:
            end = time.monotonic() + 0.5
    dropped = struct.unpack("II", s.getsockopt(263, PACKET_STATISTICS, 8))[1]
    print(json.dumps({"runs": runs, "dropped": dropped}), flush=True)


if __name__ == "__main__":
    main()
