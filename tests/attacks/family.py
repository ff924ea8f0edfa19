"""What several processes could do together, for a program that may start some."""
# ruff: noqa: F821

import signal
import socket
import subprocess

SCRIPT = "#!/bin/sh\necho attacked\n"


def printed(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=5, **options)
    return done.stdout.strip() or None


def in_child(function):
    """What `function` gained in a child of ours."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            gained = function()
            if gained is not None:
                os.write(write_end, repr(gained).encode()[:1000])
        except BaseException:
            pass
        finally:
            os._exit(0)
    os.close(write_end)
    try:
        return os.read(read_end, 1000).decode() or None
    finally:
        os.close(read_end)
        os.waitpid(pid, 0)


@attempt
def child_reads_the_secret():
    return in_child(lambda: open(T["tmp_secret"]).read())


@attempt
def shell_reads_the_secret():
    return printed("cat", T["tmp_secret"])


@attempt
def shell_writes_beside_the_secret():
    return printed("sh", "-c", f"echo x > {T['tmp_secret']}.new && echo attacked")


@attempt
def shell_connects_to_the_host():
    return printed("bash", "-c", f"echo x > /dev/tcp/127.0.0.1/{T['tcp']} && echo attacked")


@attempt
def child_is_in_a_new_user_namespace():
    return in_child(lambda: call("unshare", 0x10000000) or True)


@attempt
def program_that_unshares():
    return printed("unshare", "--user", "--map-root-user", "echo", "attacked")


@attempt
def child_has_no_filter():
    return in_child(lambda: libc.prctl(21, 0, 0, 0, 0) != 2 or None)


@attempt
def child_may_gain_privileges():
    return in_child(lambda: libc.prctl(39, 0, 0, 0, 0) != 1 or None)


@attempt
def program_has_no_filter():
    return printed("grep", "-E", "^(Seccomp|NoNewPrivs):\\s*0", "/proc/self/status")


@attempt
def setuid_program_has_its_owners_rights():
    return printed("chage", "-l", "root")


@attempt
def own_setuid_program():
    with open("/usr/bin/id", "rb") as source, open("own-id", "wb") as copy:
        copy.write(source.read())
    os.chmod("own-id", 0o6755)
    return "uid=0" in (printed("./own-id") or "") or None


@attempt
def switch_user():
    return printed("su", "-c", "echo attacked", input="\n")


@attempt
def program_in_the_temporary_folder():
    with open("/tmp/dropped", "w") as file:
        file.write(SCRIPT)
    os.chmod("/tmp/dropped", 0o755)
    return printed("/tmp/dropped")


@attempt
def program_in_the_granted_folder():
    path = T["granted"] + "/dropped"
    with open(path, "w") as file:
        file.write(SCRIPT)
    os.chmod(path, 0o755)
    return printed(path)


@attempt
def end_the_first_process():
    os.kill(1, signal.SIGKILL)
    os.kill(1, signal.SIGTERM)
    os.kill(1, signal.SIGSTOP)


@attempt
def forge_the_first_process_words():
    for name in os.listdir("/proc/1/fd"):
        os.write(os.open(f"/proc/1/fd/{name}", os.O_WRONLY), b"exit 0 0.0\n")
        return name


@attempt
def trace_the_first_process():
    return syscall(101, 117, 16, 1, 0, 0) or True


@attempt
def trace_own_child():
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        return syscall(101, 117, 16, pid, 0, 0) or True
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@attempt
def child_asks_to_be_traced():
    return in_child(lambda: syscall(101, 117, 0, 0, 0, 0) or True)


@attempt
def child_of_the_supervisor():
    pid = syscall(56, 220, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return pid


@attempt
def child_in_each_namespace():
    got = []
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        try:
            pid = syscall(56, 220, flag | signal.SIGCHLD, 0, 0, 0, 0)
        except OSError:
            continue
        if pid == 0:
            os._exit(0)
        got.append(hex(flag))
    return got or None


@attempt
def pass_a_descriptor():
    one, other = socket.socketpair()
    return in_child(lambda: socket.send_fds(one, [b"x"], [0]))


@attempt
def meet_at_an_abstract_name():
    return in_child(lambda: socket.socket(socket.AF_UNIX).bind("\0corral") or True)


@attempt
def child_raises_its_limits():
    import resource

    def raise_one():
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        return True

    return in_child(raise_one)


@attempt
def limits_are_gone_in_a_program():
    return printed("sh", "-c", "ulimit -v unlimited 2>/dev/null && echo raised")


@attempt
def core_of_a_child():
    pid = os.fork()
    if pid == 0:
        os.abort()
    _, status = os.waitpid(pid, 0)
    return os.WCOREDUMP(status) or None


@attempt
def more_processes_than_granted():
    children = []
    try:
        while len(children) < 200:
            pid = os.fork()
            if pid == 0:
                signal.pause()
            children.append(pid)
    except OSError:
        pass
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    # A thread counts as a process there, and 64 of those are everyone's.
    return len(children) if len(children) > T["granted_processes"] + 64 else None


@attempt
def library_loaded_into_a_program():
    # Only into its own programs, whose rights are no more than its own.
    with open("own.so", "wb") as file:
        file.write(b"not a library")
    environment = {**os.environ, "LD_PRELOAD": os.path.abspath("own.so")}
    return "uid=0" in (printed("id", env=environment) or "") or None


@attempt
def interpreter_of_a_script_is_outside():
    with open("script", "w") as file:
        file.write(f"#!{T['tmp_secret']}\n")
    os.chmod("script", 0o755)
    return printed("./script")


@attempt
def open_the_terminal_of_the_session():
    return in_child(lambda: (os.setsid(), os.open("/dev/tty", os.O_RDWR)))


@attempt
def filter_of_its_own():
    try:
        return syscall(157, 167, 22, 2, 0, 0, 0) or True
    except OSError as error:
        return True if error.errno == errno.EFAULT else None
