"""Parts of the kernel that a program has no business with, and getting rid of the limits."""
# ruff: noqa: F821

NEW = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "time": 0x00000080,
}


@attempt
def unshare_user():
    return call("unshare", NEW["user"]) or True


@attempt
def unshare_each():
    got = []
    for name, flag in NEW.items():
        try:
            call("unshare", flag)
            got.append(name)
        except OSError:
            continue
    return got or None


@attempt
def clone_into_new_user():
    pid = syscall(56, 220, NEW["user"] | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return pid


@attempt
def clone_thread_into_new_user():
    return syscall(56, 220, NEW["user"] | 0x10F00, 0, 0, 0, 0)


@attempt
def clone3_into_new_user():
    arguments = struct.pack("=11Q", NEW["user"], 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
    pid = syscall(435, 435, arguments, len(arguments))
    if pid == 0:
        os._exit(0)
    return pid


@attempt
def enter_namespace_of_the_victim():
    return call("setns", os.pidfd_open(T["pid"]), NEW["mount"]) or True


@attempt
def enter_namespace_by_file():
    return call("setns", os.open(f"/proc/{T['pid']}/ns/net", os.O_RDONLY), 0) or True


@attempt
def become_root():
    return os.setuid(0) or True


@attempt
def become_root_group():
    return os.setgid(0) or True


@attempt
def become_root_by_saved_id():
    return os.setresuid(0, 0, 0) or True


@attempt
def gain_groups():
    return os.setgroups([0]) or True


@attempt
def file_system_identity():
    before = libc.setfsuid(-1)
    libc.setfsuid(0)
    return libc.setfsuid(-1) != before or None


@attempt
def already_root():
    return os.getuid() == 0 or os.geteuid() == 0 or os.getgid() == 0 or None


@attempt
def set_capabilities():
    header = struct.pack("=Ii", 0x20080522, 0)
    data = struct.pack("=6I", 0xFFFFFFFF, 0xFFFFFFFF, 0, 0, 0, 0)
    return call("capset", header, data) or True


@attempt
def capabilities_left():
    for line in open("/proc/self/status"):
        if line.startswith(("CapEff", "CapPrm", "CapInh", "CapAmb")) and int(line.split()[1], 16):
            return line


@attempt
def capabilities_in_bounding_set():
    for line in open("/proc/self/status"):
        if line.startswith("CapBnd") and int(line.split()[1], 16):
            return line


@attempt
def bounding_set_by_prctl():
    return [c for c in range(41) if libc.prctl(23, c, 0, 0, 0) == 1] or None


@attempt
def new_privileges_possible():
    return libc.prctl(39, 0, 0, 0, 0) != 1 or None


@attempt
def filter_missing():
    return libc.prctl(21, 0, 0, 0, 0) != 2 or None


@attempt
def keep_capabilities():
    return call("prctl", 8, 1, 0, 0, 0) or True


@attempt
def become_dumpable():
    return call("prctl", 4, 1, 0, 0, 0) or True


@attempt
def outlive_the_parent():
    return call("prctl", 1, 0, 0, 0, 0) or True


@attempt
def be_a_subreaper():
    return call("prctl", 36, 1, 0, 0, 0) or True


@attempt
def change_own_memory_map():
    return call("prctl", 35, 1, 0x10000, 0, 0) or True


@attempt
def personality():
    return call("personality", 0x0400000) or True


@attempt
def session_keyring():
    return syscall(250, 219, 0, -3, 1)


@attempt
def add_key():
    return syscall(248, 217, b"user", b"attacked", b"x", 1, -3)


@attempt
def request_key():
    return syscall(249, 218, b"user", b"attacked", 0, -3)


@attempt
def user_fault_descriptor():
    return syscall(323, 282, 1)


@attempt
def performance_counters():
    attributes = ctypes.create_string_buffer(struct.pack("=IIQ", 1, 128, 0), 128)
    return syscall(298, 241, attributes, 0, -1, -1, 0)


@attempt
def packet_filter_program():
    return syscall(321, 280, 0, ctypes.create_string_buffer(128), 128)


@attempt
def io_uring_setup():
    return syscall(425, 425, 8, ctypes.create_string_buffer(120))


@attempt
def io_uring_enter():
    return syscall(426, 426, 0, 0, 0, 0, 0, 0)


@attempt
def io_uring_register():
    return syscall(427, 427, -1, 0, 0, 0)


@attempt
def asynchronous_io():
    context = ctypes.create_string_buffer(8)
    return syscall(206, 0, 8, context) or True


@attempt
def input_output_ports():
    return syscall(172, None, 3) or True


@attempt
def local_descriptor_table():
    return syscall(154, None, 0, ctypes.create_string_buffer(16), 16) or True


@attempt
def load_a_kernel():
    return syscall(246, 104, 0, 0, 0, 0) or True


@attempt
def shared_memory_segment():
    return syscall(29, 194, 0, 4096, 0o1600)


@attempt
def message_queue():
    return syscall(68, 186, 0, 0o1600)


@attempt
def semaphores():
    return syscall(64, 190, 0, 1, 0o1600)


@attempt
def posix_message_queue():
    return syscall(240, 180, b"attacked", 0o102, 0o600, 0)


@attempt
def lock_memory():
    return call("mlockall", 3) or True


@attempt
def another_landlock():
    return syscall(444, 444, 0, 0, 1)


@attempt
def change_the_filter():
    # SECCOMP_SET_MODE_FILTER with the new call; answers EFAULT where it is reached.
    try:
        return syscall(317, 277, 1, 0, 0) or True
    except OSError as error:
        return True if error.errno == errno.EFAULT else None


@attempt
def terminal_insert():
    import fcntl

    return fcntl.ioctl(0, 0x5412, b"a")


@attempt
def terminal_insert_with_high_bits():
    # The kernel looks at 32 bits of the command; a filter that compares 64 would let this through.
    return syscall(16, 29, 0, 0x5412 | 1 << 32, b"a") or True


@attempt
def terminal_paste():
    import fcntl

    return fcntl.ioctl(0, 0x541C, b"\x03")


@attempt
def steal_terminal():
    import fcntl

    return fcntl.ioctl(0, 0x540E, 1)


@attempt
def open_terminal():
    return os.open("/dev/tty", os.O_RDWR)


@attempt
def new_terminal():
    return os.openpty()


@attempt
def raise_cpu_limit():
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))
    return True


@attempt
def raise_memory_limit():
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    return True


@attempt
def raise_process_limit():
    import resource

    resource.setrlimit(resource.RLIMIT_NPROC, (10000, 10000))
    return True


@attempt
def raise_file_size_limit():
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    return True


@attempt
def unknown_calls():
    # Numbers from 463 on are newer than the filter: none may be let through to the kernel.
    for number in range(463, 600):
        try:
            syscall(number, number, 0, 0, 0, 0, 0, 0)
            return number
        except OSError as error:
            if error.errno != errno.ENOSYS:
                return number, error.errno
