import builtins
import sys

builtins.print = builtins.open = builtins.repr = None
sys.modules.clear()
sys.stdout = sys.stderr = None
builtins.__import__ = None
raise ZeroDivisionError
