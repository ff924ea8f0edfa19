"""System calls that no program needs, made with harmless arguments: is the kernel's code reached?

Refused means EPERM or ENOSYS; any other answer is the kernel's own, so the call got that far. What
the other files attempt by name is not repeated here.
"""
# ruff: noqa: F821

NULL = 0
BAD = -1
# Name: the number on x86_64, that on aarch64 (from the kernel's tables), arguments.
CALLS = {
    "reboot": (169, 142, (0, 0, 0, 0)),
    "load_a_kernel_from_a_file": (320, 294, (BAD, BAD, 0, NULL, 1 << 30)),
    "swap_on": (167, 224, (b"/none", 0)),
    "swap_off": (168, 225, (b"/none",)),
    "process_accounting": (163, 89, (b"/none",)),
    "set_time_of_day": (164, 170, (1, 1)),
    "set_clock": (227, 112, (0, 1)),
    "adjust_a_clock": (305, 266, (0, 1)),
    "adjust_the_clock": (159, 171, (1,)),
    "set_host_name": (170, 161, (b"attacked", 1 << 20)),
    "set_domain_name": (171, 162, (b"attacked", 1 << 20)),
    "load_a_module": (175, 105, (NULL, 0, NULL)),
    "load_a_module_from_a_file": (313, 273, (BAD, b"", 0)),
    "unload_a_module": (176, 106, (b"none", 0)),
    "disk_quotas": (179, 60, (0x800000, NULL, 0, NULL)),
    "disk_quotas_by_descriptor": (443, 443, (BAD, 0, 0, NULL)),
    "look_up_a_cookie": (212, 18, (0, NULL, 0)),
    "hang_up_the_terminal": (153, 58, ()),
    "change_root": (161, 51, (b".",)),
    "unmount": (166, 39, (b"/none", 0)),
    "pivot_root": (155, 41, (b".", b".")),
    "make_a_mount": (432, 432, (BAD, 0, 0)),
    "pick_a_file_system": (433, 433, (BAD, b"", 0)),
    "configure_a_file_system": (431, 431, (BAD, 0, NULL, NULL, 0)),
    "move_a_mount": (429, 429, (BAD, b"", BAD, b"", 0)),
    "change_a_mount": (442, 442, (BAD, b"", 0, NULL, 0)),
    "ask_about_a_mount": (457, 457, (NULL, NULL, 0, 0)),
    "list_mounts": (458, 458, (NULL, NULL, 0, 0)),
    "mark_for_watching": (301, 263, (BAD, 0, 0, BAD, NULL)),
    "reap_a_dying_process": (448, 448, (BAD, 0)),
    "bind_memory_to_a_node": (237, 235, (NULL, 0, 0, NULL, 0, 0)),
    "set_memory_policy": (238, 237, (0, NULL, 0)),
    "get_memory_policy": (239, 236, (NULL, NULL, 0, NULL, 0)),
    "set_home_node": (450, 450, (NULL, 0, 0, 0)),
    "move_pages": (279, 239, (0, 0, NULL, NULL, NULL, 0)),
    "input_output_priority": (252, 31, (1, 0)),
    "set_scheduling_attributes": (314, 274, (0, NULL, 0)),
    "get_scheduling_attributes": (315, 275, (0, NULL, 0, 0)),
    "set_scheduling_parameters": (142, 118, (0, NULL)),
    "round_robin_interval": (148, 127, (0, NULL)),
    "lock_some_memory": (149, 228, (NULL, 0)),
    "lock_some_memory_by_new_call": (325, 284, (NULL, 0, 0)),
    "remap_file_pages": (216, 234, (NULL, 0, 0, 0, 0)),
    "map_pages_into_a_pipe": (278, 75, (BAD, NULL, 0, 0)),
    "splice_a_pipe": (275, 76, (BAD, NULL, BAD, NULL, 0, 0)),
    "tee_a_pipe": (276, 77, (BAD, BAD, 0, 0)),
    "add_a_landlock_rule": (445, 445, (BAD, 1, NULL, 0)),
    "restrict_by_landlock": (446, 446, (BAD, 0)),
    "remove_a_message_queue": (241, 181, (b"none",)),
    "attach_shared_memory": (30, 196, (BAD, NULL, 0)),
    "send_a_message": (69, 189, (BAD, NULL, 0, 0)),
    "submit_asynchronous_io": (209, 2, (0, 0, NULL)),
    "destroy_asynchronous_io": (207, 1, (0,)),
    "set_real_and_effective_user": (113, 145, (BAD, BAD)),
    "set_real_and_effective_group": (114, 143, (BAD, BAD)),
    "set_saved_group": (119, 149, (BAD, BAD, BAD)),
    "set_file_system_group": (123, 152, (BAD,)),
    "get_capabilities": (125, 90, (NULL, NULL)),
    "write_out_every_disk": (162, 81, ()),
    "write_out_a_disk": (306, 267, (BAD,)),
    "ask_about_the_page_cache": (451, 451, (BAD, NULL, NULL, 0)),
    "seal_memory": (462, 462, (NULL, 0, 0)),
    "set_security_attributes": (460, 460, (0, NULL, 0, 0)),
    "get_security_attributes": (459, 459, (0, NULL, NULL, 0)),
    "list_security_modules": (461, 461, (NULL, NULL, 0)),
    "one_input_output_port": (173, None, (0x80, 1, 1)),
    "use_an_old_library": (134, None, (b"/none",)),
    "file_system_statistics": (136, None, (0, NULL)),
    "list_file_systems": (139, None, (3,)),
    "old_sysctl": (156, None, (NULL,)),
    "create_a_module": (174, None, (b"x", 0)),
    "shadow_stack": (453, 453, (NULL, 0, 0)),
    "protection_key": (330, 289, (0, 0)),
    "protect_by_key": (329, 288, (NULL, 0, 0, BAD)),
    "new_futex_wake": (454, 454, (NULL, 0, 0, 0)),
    "timer_of_its_own": (222, 107, (0, NULL, NULL)),
    "another_tasks_robust_list": (274, 100, (1, NULL, NULL)),
}


def reached(name, x86, arm, arguments):
    def made():
        try:
            return f"answered {syscall(x86, arm, *arguments)}"
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOSYS):
                raise
            return f"answered {error}"

    made.__name__ = name
    attempt(made)


for name, (x86, arm, arguments) in CALLS.items():
    reached(name, x86, arm, arguments)


@attempt
def lock_that_inherits_priority():
    word = ctypes.create_string_buffer(8)
    return syscall(202, 98, word, 6, 0, 0, 0, 0) or True


@attempt
def requeue_to_a_lock_that_inherits_priority():
    words = ctypes.create_string_buffer(16)
    return syscall(202, 98, words, 12, 1, 0, words, 0) or True


@attempt
def processor_feature_by_arch_prctl():
    return syscall(158, None, 0x1023, 18) or True


@attempt
def processor_identification_by_arch_prctl():
    return syscall(158, None, 0x1012, 1) or True


# Of prctl's hundred things, what no program is to have.
PRCTLS = {
    "keep_timer_slack": (29, 1000),
    "turn_off_performance_counters": (31, 0),
    "be_killed_by_memory_errors": (33, 1, 1),
    "let_anyone_trace": (0x59616D61, -1),
    "secure_bits": (28, 0),
    "speculation": (53, 0, 2),
    "flush_input_output": (57, 1),
    "share_a_core": (62, 1, 0, 0, 0),
    "raise_an_ambient_capability": (47, 2, 21),
    "read_the_time_stamp_counter": (26, 1),
    "dispatch_its_own_calls": (59, 0, 0, 0, 0),
    "stop_huge_pages": (41, 1),
    "tag_addresses": (55, 0),
    "add_a_filter": (22, 2, 0),
    "signal_at_the_parents_end": (1, 9),
}


def by_prctl(name, arguments):
    def made():
        try:
            return f"answered {syscall(157, 167, *(*arguments, 0, 0, 0, 0)[:5])}"
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOSYS):
                raise
            return f"answered {error}"

    made.__name__ = name
    attempt(made)


for name, arguments in PRCTLS.items():
    by_prctl(name, arguments)
