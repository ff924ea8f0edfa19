"""Corral's own machine code for a processor's int8 passes, put together by LLVM when a model loads.

`code` is the language that the kernels are written in, `rows`, `product` and `attention` are the
kernels, `layer` puts them together, `machine` compiles them and finds the threads. They take the
same way through their numbers however many rows come together and whatever their neighbours are,
so a token's numbers are the same to the last bit alone, in a prompt and among other sessions.
"""
