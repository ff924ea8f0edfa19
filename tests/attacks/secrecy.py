"""Learning what the program was not given."""
# ruff: noqa: F821


def contents(path):
    with open(path, "rb") as file:
        return file.read(100)


# First, before other attempts open some.
@attempt
def descriptors_left_open():
    left = []
    for fd in range(3, 1024):
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            continue
        if not stat.S_ISDIR(mode):
            left.append(fd)
    return left or None


@attempt
def read_home_secret():
    return contents(T["home_secret"])


@attempt
def read_temporary_secret():
    return contents(T["tmp_secret"])


@attempt
def read_project_file():
    return contents(T["project_file"])


@attempt
def read_through_proc_self_root():
    return contents("/proc/self/root" + T["tmp_secret"])


@attempt
def read_through_proc_one_root():
    return contents("/proc/1/root" + T["tmp_secret"])


@attempt
def read_through_parents_root():
    return contents(f"/proc/{os.getppid()}/root" + T["tmp_secret"])


@attempt
def read_through_victims_root():
    return contents(f"/proc/{T['pid']}/root" + T["tmp_secret"])


@attempt
def read_through_dots():
    return contents("../" * 40 + T["tmp_secret"].lstrip("/"))


@attempt
def read_through_symbolic_link():
    os.symlink(T["tmp_secret"], "link")
    return contents("link")


@attempt
def read_through_folder_link():
    os.symlink("/", "slash")
    return contents("slash" + T["tmp_secret"])


@attempt
def read_through_hard_link():
    os.link(T["tmp_secret"], "hard")
    return contents("hard")


@attempt
def move_secret_here():
    os.rename(T["tmp_secret"], "moved")
    return contents("moved")


@attempt
def reopen_from_path_descriptor():
    fd = os.open(T["tmp_secret"], os.O_PATH)
    return contents(f"/proc/self/fd/{fd}")


@attempt
def open_by_openat2():
    how = struct.pack("=QQQ", 0, 0, 0)
    fd = syscall(437, 437, -100, T["tmp_secret"].encode(), how, len(how))
    return os.read(fd, 100)


@attempt
def open_by_creat_and_read():
    fd = syscall(85, None, T["tmp_secret"].encode(), 0o600)
    return fd


@attempt
def execute_map_of_secret():
    ctypes.CDLL(T["tmp_secret"])
    return True


@attempt
def read_by_io_uring():
    params = ctypes.create_string_buffer(120)
    return syscall(425, 425, 4, params)


@attempt
def open_by_file_handle():
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
    mount_id = ctypes.create_string_buffer(8)
    syscall(303, 264, -100, T["tmp_secret"].encode(), handle, mount_id, 0)
    return os.read(syscall(304, 265, -100, handle, 0), 100)


@attempt
def make_a_file_handle():
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
    mount_id = ctypes.create_string_buffer(8)
    return syscall(303, 264, -100, T["tmp_secret"].encode(), handle, mount_id, 0) or True


@attempt
def copy_the_mount_tree():
    return syscall(428, 428, -100, b"/", 1)


@attempt
def list_home():
    # The sandbox's own root may have empty folders of that name, which lead to the libraries.
    return os.path.basename(os.path.dirname(T["home_secret"])) in os.listdir(T["home"]) or None


@attempt
def list_temporary_folder_of_the_secret():
    return os.listdir(os.path.dirname(T["tmp_secret"]))


@attempt
def list_project():
    project = os.path.dirname(T["project_file"])
    # The folder may stand on the way to the packages, whose place is no secret.
    on_the_way = os.path.relpath(T["packages"], project).partition(os.sep)[0]
    if seen := sorted(set(os.listdir(project)) - {on_the_way}):
        return seen
    raise FileNotFoundError(project)


@attempt
def walk_up_and_list():
    here = os.getcwd()
    try:
        os.chdir("/")
        for step in os.path.dirname(T["tmp_secret"]).strip("/").split("/"):
            os.chdir(step)
        return os.listdir(".")
    finally:
        os.chdir(here)


@attempt
def find_out_that_the_secret_exists():
    return os.stat(T["tmp_secret"]).st_size or True


@attempt
def read_shadow():
    return contents("/etc/shadow")


@attempt
def read_hosts_users():
    return "root:" in open("/etc/passwd").read() or None


@attempt
def read_hosts_configuration():
    return contents("/etc/hostname") or contents("/etc/hosts") or contents("/etc/fstab")


@attempt
def secret_in_environment():
    return T["env_name"] in os.environ or None


@attempt
def secret_in_own_environ_file():
    return T["env_name"].encode() in open("/proc/self/environ", "rb").read() or None


@attempt
def secret_in_hosts_environ_file():
    return contents(f"/proc/{T['host_pid']}/environ")


@attempt
def secret_in_parents_environ_file():
    return contents(f"/proc/{os.getppid()}/environ")


@attempt
def read_victims_memory():
    return open(f"/proc/{T['pid']}/mem", "rb")


@attempt
def read_parents_memory():
    return open(f"/proc/{os.getppid()}/mem", "rb")


@attempt
def read_first_process_maps():
    return contents("/proc/1/maps") or None


@attempt
def list_victims_descriptors():
    return os.listdir(f"/proc/{T['pid']}/fd")


@attempt
def list_parents_descriptors():
    return os.listdir(f"/proc/{os.getppid()}/fd")


@attempt
def see_the_hosts_processes():
    pids = [int(p) for p in os.listdir("/proc") if p.isdigit()]
    return [p for p in pids if p > 100] or None


@attempt
def victims_command_line():
    return contents(f"/proc/{T['pid']}/cmdline")


@attempt
def climb_from_folder_descriptors():
    for fd in range(0, 1024):
        try:
            top = os.open("../" * 40, os.O_PATH, dir_fd=fd)
            return os.read(os.open(T["tmp_secret"].lstrip("/"), os.O_RDONLY, dir_fd=top), 100)
        except OSError:
            continue


@attempt
def read_kernel_memory():
    return open("/dev/mem", "rb") or open("/proc/kcore", "rb")


@attempt
def read_raw_disk():
    for name in ("vda", "sda", "nvme0n1", "xvda", "loop0"):
        try:
            return open(f"/dev/{name}", "rb")
        except OSError:
            continue


@attempt
def read_kernel_symbols():
    return contents("/proc/kallsyms")


@attempt
def read_kernel_log():
    buffer = ctypes.create_string_buffer(4096)
    return syscall(103, 116, 3, buffer, 4096)


@attempt
def list_sys():
    return os.listdir("/sys/class") or None


@attempt
def read_mounts_of_host():
    return T["home"] in open("/proc/1/mounts").read() or None


@attempt
def watch_the_secrets_folder():
    fd = call("inotify_init1", 0)
    return call("inotify_add_watch", fd, os.path.dirname(T["tmp_secret"]).encode(), 0xFFF)


@attempt
def watch_everything():
    return syscall(300, 262, 0, 0)


@attempt
def read_victim_with_process_vm():
    buffer = ctypes.create_string_buffer(8)
    local = ctypes.create_string_buffer(struct.pack("@PN", ctypes.addressof(buffer), 8))
    remote = ctypes.create_string_buffer(struct.pack("@PN", 0x400000, 8))
    return syscall(310, 270, T["pid"], local, 1, remote, 1, 0)


@attempt
def take_victims_descriptor():
    pidfd = os.pidfd_open(T["pid"])
    return syscall(438, 438, pidfd, 1, 0)


@attempt
def dump_own_core_somewhere():
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
    return True


@attempt
def read_by_terminal_tricks():
    import fcntl

    return fcntl.ioctl(0, 0x5412, b"x")


@attempt
def read_launchers_policy_from_frames():
    frame = sys._getframe()
    while frame.f_back:
        frame = frame.f_back
        for value in frame.f_locals.values():
            if isinstance(value, dict) and "memory_bytes" in value and value.get("user") == 0:
                return value
