"""How cria and cria-guard are trained. Not part of the installed package: run it from a checkout,
`python -m training.train`.
"""
