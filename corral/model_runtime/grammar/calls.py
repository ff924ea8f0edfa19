"""What a constraint allows a model to write, as one grammar: plain text, or calls, or code.

The notation is the Lark dialect of llguidance. Forced spacing is that of Corral's own renderings,
so that a call written under a grammar has the tokens that it will have in the history.
"""

from __future__ import annotations

from collections.abc import Sequence

from corral.messages import ToolSpec
from corral.model_runtime.grammar.lark import Rules, quoted
from corral.model_runtime.grammar.pythonic import PythonLiterals
from corral.model_runtime.grammar.schemas import JsonObject, SchemaBounds, as_object, fit
from corral.model_runtime.runtime import Constraint

__all__ = ["MOST_CALLS", "grammar_of"]

MOST_CALLS = 8
"""Calls in one message of a model that makes several."""

# Text begins with no sign that begins a call, so that no call comes as text.
_TEXT = r"/\s*[^\s\[{<](.|\n)*/"
_CODE = r"/\s*[^\s\[{](.|\n)*/"


def grammar_of(constraint: Constraint, bounds: SchemaBounds) -> str:
    """The grammar of all outputs that a constraint admits."""
    rules = Rules()
    if constraint.json_schema is not None:
        document = dict(constraint.json_schema)
        return rules.text(rules.json(_whole_document(document, bounds)))
    functions = [tool for tool in constraint.tools if tool.kind != "code_interpreter"]
    forms: list[str] = []
    if functions:
        write = {"pythonic": _pythonic, "json": _json, "tags": _tags}[constraint.syntax]
        most = MOST_CALLS if constraint.parallel else 1
        forms.append(write(rules, functions, bounds, most))
    if any(tool.kind == "code_interpreter" for tool in constraint.tools):
        forms.append(f"<|python_tag|> {rules.terminal(_CODE)}")
    if not constraint.required or not forms:
        forms.append(rules.terminal(_TEXT))
    return rules.text(" | ".join(forms))


def _pythonic(rules: Rules, tools: Sequence[ToolSpec], bounds: SchemaBounds, most: int) -> str:
    """`[f(a=1), g()]`; a tool whose parameters are no identifiers is called in JSON."""
    plain = [tool for tool in tools if _has_plain_names(tool)]
    others = [tool for tool in tools if not _has_plain_names(tool)]
    forms: list[str] = []
    if plain:
        calls = [
            _call(
                rules,
                f"{tool.name}(",
                PythonLiterals(rules, tool.parameters, bounds).arguments(),
                ")",
            )
            for tool in plain
        ]
        forms.append(f'"[" {rules.repeated(rules.rule(" | ".join(calls)), 1, most)} "]"')
    if others:
        forms.append(_json_calls(rules, others, bounds, most))
    return rules.rule(" | ".join(forms))


def _json(rules: Rules, tools: Sequence[ToolSpec], bounds: SchemaBounds, most: int) -> str:
    """JSON objects joined by `; `, behind `<|python_tag|>` or not; built-ins in their own form."""
    forms = [_json_calls(rules, tools, bounds, most)]
    query = PythonLiterals(rules, {}, bounds).value(_QUERY)
    native = [
        _call(rules, f"{tool.name}.call(query=", query, ")")
        for tool in tools
        if tool.kind == "builtin"
    ]
    if native:
        forms.append(f"<|python_tag|> {rules.rule(' | '.join(native))}")
    forms.append(f"<|python_tag|> {forms[0]}")
    return rules.rule(" | ".join(forms))


_QUERY: JsonObject = {"type": "string", "minLength": 1}


_JSON_FORMS = (
    '{{"name": "{}", "parameters": ',
    '{{"type": "function", "name": "{}", "parameters": ',
)
"""As Llama 3.2 begins a call, and as Llama 3.1 does."""


def _json_calls(rules: Rules, tools: Sequence[ToolSpec], bounds: SchemaBounds, most: int) -> str:
    calls = [
        _json_call(rules, before.format(tool.name), tool, bounds, "}")
        for tool in tools
        for before in _JSON_FORMS
    ]
    return rules.repeated(rules.rule(" | ".join(calls)), 1, most, separator="; ")


def _tags(rules: Rules, tools: Sequence[ToolSpec], bounds: SchemaBounds, most: int) -> str:
    """`<function=f>{...}</function>`, one after another."""
    calls = [
        _json_call(rules, f"<function={tool.name}>", tool, bounds, "</function>") for tool in tools
    ]
    return rules.repeated(rules.rule(" | ".join(calls)), 1, most, separator="")


def _json_call(rules: Rules, before: str, tool: ToolSpec, bounds: SchemaBounds, after: str) -> str:
    return _call(rules, before, rules.json(_whole_document(tool.parameters, bounds)), after)


def _call(rules: Rules, before: str, arguments: str, after: str) -> str:
    return rules.rule(f"{quoted(before)} {arguments} {quoted(after)}")


def _whole_document(document: JsonObject, bounds: SchemaBounds) -> JsonObject:
    fitted = fit(document, bounds)
    if fitted.get("type") == "object" and "additionalProperties" not in fitted:
        fitted["additionalProperties"] = False
    for key in ("$defs", "definitions"):
        if inner := as_object(document.get(key)):
            fitted[key] = {name: fit(each, bounds) for name, each in inner.items()}
    return fitted


def _has_plain_names(tool: ToolSpec) -> bool:
    names = as_object(tool.parameters.get("properties"))
    return all(name.isidentifier() and name.isascii() for name in names)
