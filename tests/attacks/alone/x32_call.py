# The x32 table's getpid: bit 30 of the number.
import ctypes

print(ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 + 39)))
print("GAINED")
