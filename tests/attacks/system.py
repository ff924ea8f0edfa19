"""What the kernel tells, and lets be set, through /proc, /sys and /dev."""
# ruff: noqa: F821

READ = {
    "kernel_command_line": "/proc/cmdline",
    "kernel_configuration": "/proc/config.gz",
    "kernel_modules": "/proc/modules",
    "kernel_timers": "/proc/timer_list",
    "kernel_memory_layout": "/proc/iomem",
    "kernel_page_types": "/proc/pagetypeinfo",
    "interrupts": "/proc/interrupts",
    "load": "/proc/loadavg",
    "memory_in_use": "/proc/meminfo",
    "disk_activity": "/proc/diskstats",
    "partitions": "/proc/partitions",
    "swap_files": "/proc/swaps",
    "file_locks": "/proc/locks",
    "all_keys": "/proc/keys",
    "users_of_keys": "/proc/key-users",
    "shared_memory_of_others": "/proc/sysvipc/shm",
    "tcp_connections": "/proc/net/tcp",
    "unix_sockets": "/proc/net/unix",
    "routes": "/proc/net/route",
    "pressure": "/proc/pressure/cpu",
    "buses": "/proc/bus/pci/devices",
    "boot_identity": "/proc/sys/kernel/random/boot_id",
    "hosts_name": "/proc/sys/kernel/hostname",
    "swappiness": "/proc/sys/vm/swappiness",
    "machine_identity": "/etc/machine-id",
    "product_identity": "/sys/class/dmi/id/product_uuid",
    "network_devices": "/sys/class/net/lo/address",
    "kernel_notes": "/sys/kernel/notes",
    "kernel_types": "/sys/kernel/btf/vmlinux",
    "control_group_limits": "/sys/fs/cgroup/cgroup.controllers",
    "name_servers": "/etc/resolv.conf",
    "mounted_disks": "/etc/mtab",
    "first_process_environment": "/proc/1/environ",
    "first_process_memory": "/proc/1/mem",
    "first_process_stack": "/proc/1/stack",
    "first_process_call": "/proc/1/syscall",
    "first_process_descriptors": "/proc/1/fd/2",
    "first_process_folder": "/proc/1/cwd/pyproject.toml",
    "victims_mappings": f"/proc/{T['pid']}/maps",
    "victims_status": f"/proc/{T['pid']}/status",
    "victims_program": f"/proc/{T['pid']}/exe",
    "victims_mounts": f"/proc/{T['pid']}/mountinfo",
    "victims_folder": f"/proc/{T['pid']}/cwd/pyproject.toml",
    "hosts_command_line": f"/proc/{T['host_pid']}/cmdline",
    "hosts_auxiliary_vector": f"/proc/{T['host_pid']}/auxv",
    "hosts_input_output": f"/proc/{T['host_pid']}/io",
    "hosts_threads": f"/proc/{T['host_pid']}/task/{T['host_pid']}/comm",
}
WRITE = {
    "program_for_core_dumps": "/proc/sys/kernel/core_pattern",
    "program_for_modules": "/proc/sys/kernel/modprobe",
    "program_for_devices": "/proc/sys/kernel/hotplug",
    "program_formats": "/proc/sys/fs/binfmt_misc/register",
    "hosts_name_by_file": "/proc/sys/kernel/hostname",
    "drop_caches": "/proc/sys/vm/drop_caches",
    "overcommitting": "/proc/sys/vm/overcommit_memory",
    "highest_process_number": "/proc/sys/kernel/pid_max",
    "most_user_namespaces": "/proc/sys/user/max_user_namespaces",
    "forwarding": "/proc/sys/net/ipv4/ip_forward",
    "magic_keys": "/proc/sys/kernel/sysrq",
    "helper_for_key_requests": "/proc/sys/kernel/keys/maxkeys",
    "own_user_map": "/proc/self/uid_map",
    "own_group_map": "/proc/self/gid_map",
    "own_right_to_set_groups": "/proc/self/setgroups",
    "own_old_memory_score": "/proc/self/oom_adj",
    "own_scheduling_group": "/proc/self/autogroup",
    "own_timer_slack": "/proc/self/timerslack_ns",
    "own_core_filter": "/proc/self/coredump_filter",
    "own_page_marks": "/proc/self/clear_refs",
    "own_security_label": "/proc/self/attr/exec",
    "own_audit_identity": "/proc/self/loginuid",
    "own_program_file": "/proc/self/exe",
    "victims_memory_score": f"/proc/{T['pid']}/oom_score_adj",
    "first_process_memory_score": "/proc/1/oom_score_adj",
    "release_agent": "/sys/fs/cgroup/release_agent",
    "processes_of_the_control_group": "/sys/fs/cgroup/cgroup.procs",
    "processor_offline": "/sys/devices/system/cpu/cpu1/online",
    "firmware_variables": "/sys/firmware/efi/efivars/x",
    "tracing": "/sys/kernel/tracing/tracing_on",
    "debugging": "/sys/kernel/debug/sched/debug",
    "power_state": "/sys/power/state",
}
DEVICES = (
    "kmsg port mem kvm fuse loop-control loop0 ptmx pts/ptmx console tty tty0 tty1 vcs uinput "
    "input/event0 vhost-net vhost-vsock vsock net/tun ppp snapshot mapper/control btrfs-control "
    "userfaultfd hpet rtc0 watchdog cpu_dma_latency autofs rfkill dri/card0 snd/control sg0 "
    "nvidiactl vfio/vfio udmabuf dma_heap/system bus/usb/001/001 vda nvme0n1 mqueue/x shm/x "
    "hugepages/x"
)


def opened(name, path, flags):
    def made():
        fd = os.open(path, flags | os.O_NONBLOCK)
        try:
            if flags == os.O_RDONLY:
                return os.read(fd, 100) or None
            return path
        finally:
            os.close(fd)

    made.__name__ = name
    attempt(made)


for name, path in READ.items():
    opened(f"read_{name}", path, os.O_RDONLY)
for name, path in WRITE.items():
    opened(f"set_{name}", path, os.O_WRONLY)


@attempt
def open_devices():
    # One attempt for all of them: it is the same wall.
    got = []
    for name in DEVICES.split():
        for flags in (os.O_RDWR, os.O_RDONLY, os.O_WRONLY | os.O_CREAT):
            try:
                os.close(os.open(f"/dev/{name}", flags | os.O_NONBLOCK, 0o600))
                got.append(name)
            except OSError:
                continue
    return got or None


@attempt
def list_devices():
    own = {"null", "zero", "full", "random", "urandom", "fd"}
    return sorted(set(os.listdir("/dev")) - own) or None


@attempt
def credit_entropy():
    import fcntl

    with open("/dev/random", "wb", buffering=0) as file:
        return fcntl.ioctl(file, 0x40085203, struct.pack("=iiQ", 64, 8, 0)) or True


@attempt
def own_control_group():
    for line in open("/proc/self/cgroup"):
        if line.strip().split(":", 2)[2] != "/":
            return line


@attempt
def host_name():
    return os.uname().nodename != "sandbox" or None if T["level"] != "reduced" else None


@attempt
def host_name_is_told_by_the_environment():
    return [
        n for n in os.environ if n in ("HOSTNAME", "SSH_CLIENT", "SUDO_USER", "LOGNAME")
    ] or None


@attempt
def see_more_than_own_processes():
    return len([p for p in os.listdir("/proc") if p.isdigit()]) > 2 or None


@attempt
def reopen_own_memory_as_a_file():
    # What a map lies on, opened again with more rights than the map has.
    for name in os.listdir("/proc/self/map_files"):
        try:
            return os.open(f"/proc/self/map_files/{name}", os.O_RDWR)
        except OSError:
            continue


@attempt
def leave_through_another_threads_root():
    import threading

    found = []
    thread = threading.Thread(
        target=lambda: found.extend(
            os.listdir(
                f"/proc/self/task/{threading.get_native_id()}/root{os.path.dirname(T['tmp_secret'])}"
            )
        )
    )
    threading.excepthook = lambda arguments: None
    thread.start()
    thread.join()
    return found or None


@attempt
def physical_addresses():
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(id(T) // 4096 * 8)
        (entry,) = struct.unpack("=Q", file.read(8))
        return entry & ((1 << 55) - 1) or None


@attempt
def user_who_started_it():
    return [
        u for u in open("/proc/self/status") if u.startswith("Groups") and u.split()[1:]
    ] or None


@attempt
def processor_time_of_the_victim():
    clock = struct.pack("=i", (~T["pid"] << 3) | 2)
    now = ctypes.create_string_buffer(16)
    syscall(228, 113, struct.unpack("=i", clock)[0], now)
    return now.raw


@attempt
def processor_time_of_the_host():
    now = ctypes.create_string_buffer(16)
    syscall(228, 113, (~T["host_pid"] << 3) | 2, now)
    return now.raw


@attempt
def resolution_of_the_victims_clock():
    now = ctypes.create_string_buffer(16)
    return syscall(229, 114, (~T["pid"] << 3) | 2, now) or True


@attempt
def sleep_by_the_victims_clock():
    # A time that can't be, so that it would be refused for that, if at all, and not be slept.
    never = ctypes.create_string_buffer(struct.pack("=QQ", 0, 1 << 40), 16)
    try:
        return syscall(230, 115, (~T["pid"] << 3) | 2, 0, never, never) or True
    except OSError as error:
        return True if error.errno == errno.EINVAL else None


@attempt
def group_of_the_victim():
    return os.getpgid(T["pid"])


@attempt
def session_of_the_victim():
    return os.getsid(T["pid"])


@attempt
def priority_of_the_victim():
    return os.getpriority(os.PRIO_PROCESS, T["pid"]) or True


@attempt
def priority_of_the_user():
    return os.getpriority(os.PRIO_USER, 0) or True if T["level"] == "reduced" else None


@attempt
def processors_of_the_victim():
    return os.sched_getaffinity(T["pid"])


@attempt
def scheduler_of_the_victim():
    return os.sched_getscheduler(T["pid"]) or True


@attempt
def scheduling_parameters_of_the_victim():
    return os.sched_getparam(T["pid"])


@attempt
def where_a_link_of_the_host_leads():
    return os.readlink(T["tmp_link"])
