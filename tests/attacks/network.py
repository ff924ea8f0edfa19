"""Reaching anything but the program's own pipes."""
# ruff: noqa: F821

import socket


def connected(family, kind, address, protocol=0):
    with socket.socket(family, kind, protocol) as one:
        one.settimeout(1)
        one.connect(address)
        one.send(b"attacked")
        return address


@attempt
def tcp():
    return connected(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", T["tcp"]))


@attempt
def tcp_any_socket():
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


@attempt
def tcp6():
    return socket.socket(socket.AF_INET6, socket.SOCK_STREAM)


@attempt
def udp():
    return connected(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", T["udp"]))


@attempt
def multipath_tcp():
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)


@attempt
def raw():
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


@attempt
def ping():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)


@attempt
def packet():
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW)


@attempt
def netlink():
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)


@attempt
def unix_stream():
    return connected(socket.AF_UNIX, socket.SOCK_STREAM, T["unix_stream"])


@attempt
def unix_datagram():
    return connected(socket.AF_UNIX, socket.SOCK_DGRAM, T["unix_datagram"])


@attempt
def unix_abstract():
    return connected(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + T["unix_abstract"])


@attempt
def vsock():
    return socket.socket(40, socket.SOCK_STREAM)


@attempt
def kernel_crypto():
    return socket.socket(38, socket.SOCK_SEQPACKET)


@attempt
def bluetooth():
    return socket.socket(31, socket.SOCK_RAW, 1)


@attempt
def can_bus():
    return socket.socket(29, socket.SOCK_RAW, 1)


@attempt
def every_family():
    got = []
    for family in range(1, 50):
        for kind in (1, 2, 3, 5):
            try:
                got.append(socket.socket(family, kind).family)
            except OSError:
                continue
    return got or None


@attempt
def datagram_pair_sent_to_a_path():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return one.sendto(b"attacked", T["unix_datagram"])


@attempt
def sequenced_pair_sent_to_a_path():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return one.sendto(b"attacked", T["unix_datagram"])


@attempt
def stream_pair_connected_elsewhere():
    one, other = socket.socketpair()
    other.close()
    one.connect(T["unix_stream"])
    return True


@attempt
def stream_pair_bound():
    one, other = socket.socketpair()
    one.bind("bound")
    return True


@attempt
def stream_pair_sent_to_a_path():
    one, other = socket.socketpair()
    return one.sendto(b"attacked", T["unix_stream"])


@attempt
def message_with_descriptors():
    one, other = socket.socketpair()
    return socket.send_fds(one, [b"x"], [0])


@attempt
def pair_of_another_family():
    return socket.socketpair(socket.AF_INET, socket.SOCK_STREAM)


@attempt
def resolve_a_name():
    return socket.getaddrinfo("example.com", 80)


@attempt
def http_request():
    import urllib.request

    return urllib.request.urlopen(f"http://127.0.0.1:{T['tcp']}/", timeout=1)


@attempt
def serve():
    return socket.create_server(("127.0.0.1", 0))


@attempt
def socket_by_io_uring():
    params = ctypes.create_string_buffer(120)
    return syscall(425, 425, 1, params)


@attempt
def old_socket_call():
    return syscall(41, 198, 2, 1, 0)


@attempt
def network_devices():
    return open("/dev/net/tun", "rb+") or open("/dev/vsock", "rb")


@attempt
def see_interfaces():
    return [n for _, n in socket.if_nameindex()] or None


@attempt
def filter_program_on_a_pair():
    one, other = socket.socketpair()
    instruction = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0), 8)
    program = struct.pack("@HP", 1, ctypes.addressof(instruction))
    return one.setsockopt(socket.SOL_SOCKET, 26, program) or True


@attempt
def larger_buffers_on_a_pair():
    one, other = socket.socketpair()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
    return one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


@attempt
def credentials_of_the_other_end():
    one, other = socket.socketpair()
    pid, _, _ = struct.unpack("=iii", one.getsockopt(socket.SOL_SOCKET, 17, 12))
    return pid if pid not in (0, os.getpid()) else None


@attempt
def time_stamps_of_the_network_card():
    one, other = socket.socketpair()
    return one.setsockopt(socket.SOL_SOCKET, 37, 1 << 3) or True


@attempt
def bind_to_a_device():
    one, other = socket.socketpair()
    return one.setsockopt(socket.SOL_SOCKET, 25, b"lo") or True


@attempt
def see_interfaces_by_ioctl():
    import fcntl

    one, other = socket.socketpair()
    return fcntl.ioctl(one, 0x8912, struct.pack("@iP", 0, 0))
