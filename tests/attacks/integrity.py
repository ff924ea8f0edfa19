"""Changing what is not the program's own."""
# ruff: noqa: F821


def wrote(path, mode="w"):
    with open(path, mode) as file:
        file.write("attacked")
    return path


@attempt
def write_into_home():
    return wrote(os.path.join(os.path.dirname(T["home_secret"]), "new"))


@attempt
def write_into_hosts_temporary_folder():
    return wrote(os.path.join(os.path.dirname(T["tmp_secret"]), "new"))


@attempt
def write_into_project():
    # A folder of that name may be the sandbox's own, on the way to the packages: not the project.
    os.stat(T["project_file"])
    return wrote(os.path.join(os.path.dirname(T["project_file"]), "attacked"))


@attempt
def write_into_packages():
    return wrote(os.path.join(T["packages"], "attacked.pth"))


@attempt
def write_into_standard_library():
    return wrote(os.path.join(os.path.dirname(os.__file__), "attacked.py"))


@attempt
def write_into_system():
    return wrote("/usr/lib/attacked")


@attempt
def write_into_etc():
    return wrote("/etc/attacked")


@attempt
def write_into_root():
    return wrote("/attacked")


@attempt
def write_into_shared_memory():
    return wrote("/dev/shm/attacked")


@attempt
def write_into_var_tmp():
    return wrote("/var/tmp/attacked")


@attempt
def write_into_run():
    return wrote("/run/attacked")


@attempt
def overwrite_the_secret():
    return wrote(T["tmp_secret"])


@attempt
def append_to_the_secret():
    return wrote(T["tmp_secret"], "a")


@attempt
def truncate_by_path():
    return os.truncate(T["tmp_secret"], 0) or True


@attempt
def truncate_by_reading():
    return os.open(T["tmp_secret"], os.O_RDONLY | os.O_TRUNC)


@attempt
def truncate_a_readable_file():
    return os.open(os.path.join(T["packages"], "six.py"), os.O_RDONLY | os.O_TRUNC)


@attempt
def remove_the_secret():
    return os.unlink(T["tmp_secret"]) or True


@attempt
def replace_the_secret():
    wrote("mine")
    return os.rename("mine", T["tmp_secret"]) or True


@attempt
def exchange_with_the_secret():
    wrote("mine")
    secret = T["tmp_secret"].encode()
    return syscall(316, 276, -100, b"mine", -100, secret, 2) or True


@attempt
def link_out():
    wrote("mine")
    return os.link("mine", T["tmp_secret"] + ".link") or True


@attempt
def make_link_outside():
    return os.symlink("/etc/passwd", T["tmp_secret"] + ".symlink") or True


@attempt
def make_folder_outside():
    return os.mkdir(T["tmp_secret"] + ".folder") or True


@attempt
def remove_folder_outside():
    return os.rmdir(T["empty_folder"]) or True


@attempt
def make_pipe_outside():
    return os.mkfifo(T["tmp_secret"] + ".fifo") or True


@attempt
def write_through_own_link():
    os.symlink(os.path.dirname(T["tmp_secret"]), "outside")
    return wrote("outside/through")


@attempt
def change_mode():
    before = os.stat(T["tmp_secret"]).st_mode
    os.chmod(T["tmp_secret"], 0o777)
    return os.stat(T["tmp_secret"]).st_mode != before or None


@attempt
def change_mode_by_descriptor():
    fd = os.open(T["tmp_secret"], os.O_PATH)
    before = os.fstat(fd).st_mode
    os.chmod(f"/proc/self/fd/{fd}", 0o777)
    return os.fstat(fd).st_mode != before or None


@attempt
def change_mode_by_new_call():
    before = os.stat(T["tmp_secret"]).st_mode
    syscall(452, 452, -100, T["tmp_secret"].encode(), 0o777, 0)
    return os.stat(T["tmp_secret"]).st_mode != before or None


@attempt
def change_owner():
    os.chown(T["tmp_secret"], os.getuid(), -1)
    before = os.stat(T["tmp_secret"])
    os.chown(T["tmp_secret"], -1, os.getgid())
    return os.stat(T["tmp_secret"]).st_ctime_ns != before.st_ctime_ns or None


@attempt
def change_times():
    os.utime(T["tmp_secret"], (1, 1))
    return os.stat(T["tmp_secret"]).st_mtime == 1 or None


@attempt
def set_attribute():
    os.setxattr(T["tmp_secret"], "user.attacked", b"1")
    return os.getxattr(T["tmp_secret"], "user.attacked")


@attempt
def set_attribute_by_new_call():
    return syscall(463, 463, -100, T["tmp_secret"].encode(), 0, b"user.x", bytes(16), 16) or True


@attempt
def set_inode_flags():
    import fcntl

    fd = os.open(os.path.join(T["packages"]), os.O_RDONLY)
    return fcntl.ioctl(fd, 0x40086602, struct.pack("=q", 0)) or True


@attempt
def lock_the_secret():
    import fcntl

    return fcntl.flock(open(T["tmp_secret"]), fcntl.LOCK_EX) or True


@attempt
def become_harder_to_kill():
    return open("/proc/self/oom_score_adj", "w")


@attempt
def set_core_pattern():
    return open("/proc/sys/kernel/core_pattern", "w")


@attempt
def press_magic_key():
    return open("/proc/sysrq-trigger", "w")


@attempt
def make_control_group():
    return os.mkdir("/sys/fs/cgroup/attacked") or True


@attempt
def make_device():
    os.mknod("disk", 0o600 | stat.S_IFBLK, os.makedev(254, 0))
    return open("disk", "rb")


@attempt
def mount_something():
    return call("mount", b"x", b".", b"tmpfs", 0, None) or True


@attempt
def mount_by_new_call():
    return syscall(430, 430, b"tmpfs", 0)


@attempt
def remount_writable():
    return call("mount", b"x", b"/", None, 32 | 4096, None) or True


@attempt
def bind_over():
    return call("mount", b".", b"/usr", None, 4096, None) or True


@attempt
def unmount():
    return call("umount2", b"/usr/lib", 2) or True


@attempt
def unmount_process_table():
    return call("umount2", b"/proc", 2) or True


@attempt
def change_root():
    return call("chroot", b".") or True


@attempt
def pivot():
    return syscall(155, 41, b".", b".") or True


@attempt
def change_mount_attributes():
    attributes = struct.pack("=QQQQ", 0, 1, 0, 0)
    return syscall(442, 442, -100, b"/", 0x8000, attributes, 32) or True


@attempt
def change_hostname():
    return call("sethostname", b"attacked", 8) or True


@attempt
def change_clock():
    return syscall(164, 170, struct.pack("=qq", 1, 0), 0) or True


@attempt
def adjust_clock():
    return syscall(227, 112, 0, struct.pack("=qq", 1, 0)) or True


@attempt
def load_module():
    return syscall(175, 105, b"", 0, b"") or True


@attempt
def load_module_from_file():
    return syscall(313, 273, 0, b"", 0) or True


@attempt
def reboot():
    # CAD_OFF: harmless, but needs the same privilege as the rest.
    return syscall(169, 142, 0xFEE1DEAD, 672274793, 0, 0) or True


@attempt
def swap():
    return syscall(168, 225, b"/attacked") or True


@attempt
def account():
    return syscall(163, 89, b"/attacked") or True


@attempt
def write_to_other_side_of_stdin():
    return os.write(0, b"x")
