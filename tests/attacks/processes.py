"""Starting processes, and meddling with those of others."""
# ruff: noqa: F821

import signal

CLONE_NEWUSER = 0x10000000


def child_ran(pid):
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


@attempt
def fork():
    return child_ran(os.fork())


@attempt
def fork_by_libc():
    return child_ran(call("fork"))


@attempt
def clone_raw():
    return child_ran(syscall(56, 220, signal.SIGCHLD, 0, 0, 0, 0))


@attempt
def clone_like_a_thread_but_not():
    return child_ran(syscall(56, 220, 0x600 | signal.SIGCHLD, 0, 0, 0, 0))


@attempt
def clone3():
    arguments = struct.pack("=11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    return child_ran(syscall(435, 435, arguments, len(arguments)))


@attempt
def clone_for_the_supervisor():
    return child_ran(syscall(56, 220, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0))


@attempt
def spawn():
    return child_ran(os.posix_spawn("/bin/true", ["true"], {}))


@attempt
def subprocess_run():
    import subprocess

    return subprocess.run(["/bin/echo", "attacked"], capture_output=True).stdout


@attempt
def shell():
    return os.popen("echo attacked").read() or None


@attempt
def run_own_interpreter():
    import subprocess

    return subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True).stdout


@attempt
def execute_in_place():
    os.execv("/bin/true", ["true"])


@attempt
def execute_privileged_program():
    os.execv("/usr/bin/su", ["su"])


@attempt
def execute_by_loader():
    loader = "/lib64/ld-linux-x86-64.so.2" if X86 else "/lib/ld-linux-aarch64.so.1"
    os.execv(loader, [loader, "/bin/true"])


@attempt
def execute_memory_file():
    fd = os.memfd_create("attacked")
    os.write(fd, b"#!/bin/sh\n")
    os.execve(fd, ["x"], {})


@attempt
def memory_file():
    return os.memfd_create("attacked")


@attempt
def secret_memory_file():
    return syscall(447, 447, 0)


@attempt
def signal_the_victim():
    return os.kill(T["pid"], signal.SIGUSR1) or True


@attempt
def signal_the_host():
    return os.kill(T["host_pid"], 0) or True


@attempt
def signal_the_parent():
    if os.getppid() == 1:
        return None
    return os.kill(os.getppid(), 0) or True


@attempt
def signal_every_process():
    return os.kill(-1, 0) or True if T["level"] == "reduced" else None


@attempt
def signal_a_group_of_the_host():
    return os.killpg(T["host_group"], 0) or True


@attempt
def signal_a_thread_of_the_victim():
    return syscall(234, 131, T["pid"], T["pid"], 0) or True


@attempt
def signal_a_thread_by_old_call():
    return syscall(200, 130, T["pid"], 0) or True


@attempt
def queue_a_signal():
    info = ctypes.create_string_buffer(struct.pack("=iii", 10, 0, -1), 128)
    return syscall(129, 138, T["pid"], 10, info) or True


@attempt
def open_victim_by_descriptor():
    return signal.pidfd_send_signal(os.pidfd_open(T["pid"]), 0) or True


@attempt
def have_signals_sent_by_files():
    import fcntl

    read_end, write_end = os.pipe()
    return fcntl.fcntl(read_end, fcntl.F_SETOWN, T["pid"]) or True


@attempt
def have_signals_sent_by_ioctl():
    import fcntl

    read_end, write_end = os.pipe()
    return fcntl.ioctl(read_end, 0x8901, struct.pack("=i", T["pid"])) or True


@attempt
def trace_the_victim():
    return syscall(101, 117, 16, T["pid"], 0, 0) or True


@attempt
def seize_the_victim():
    return syscall(101, 117, 0x4206, T["pid"], 0, 0) or True


@attempt
def trace_the_parent():
    return syscall(101, 117, 16, os.getppid(), 0, 0) or True


@attempt
def be_traced():
    return syscall(101, 117, 0, 0, 0, 0) or True


@attempt
def write_victims_memory():
    iov = struct.pack("@PN", 0, 0)
    return syscall(311, 271, T["pid"], iov, 1, iov, 1, 0) or True


@attempt
def compare_with_the_victim():
    return syscall(312, 272, T["pid"], os.getpid(), 0, 0, 0) or True


@attempt
def limit_the_victim():
    import resource

    return resource.prlimit(T["pid"], resource.RLIMIT_NOFILE, (1, 1))


@attempt
def read_the_victims_limits():
    import resource

    return resource.prlimit(T["pid"], resource.RLIMIT_NOFILE)


@attempt
def slow_the_victim():
    return os.setpriority(os.PRIO_PROCESS, T["pid"], 19) or True


@attempt
def slow_every_process_of_the_user():
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_USER, 0, 5)
    return os.getpriority(os.PRIO_PROCESS, 0) != before or None


@attempt
def pin_the_victim():
    return os.sched_setaffinity(T["pid"], {0}) or True


@attempt
def schedule_the_victim():
    parameters = os.sched_param(0)
    return os.sched_setscheduler(T["pid"], os.SCHED_IDLE, parameters) or True


@attempt
def be_real_time():
    return os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)) or True


@attempt
def input_output_priority_of_victim():
    return syscall(251, 30, 1, T["pid"], (3 << 13)) or True


@attempt
def be_more_important():
    return os.setpriority(os.PRIO_PROCESS, 0, -5) or True


@attempt
def regroup_the_victim():
    return os.setpgid(T["pid"], T["pid"]) or True


@attempt
def move_pages_of_the_victim():
    return syscall(256, 238, T["pid"], 1, struct.pack("=Q", 1), struct.pack("=Q", 1)) or True


@attempt
def advise_the_victims_memory():
    fd = os.pidfd_open(T["pid"])
    return syscall(440, 440, fd, struct.pack("@PN", 0, 0), 1, 21, 0) or True
