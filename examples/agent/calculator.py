"""A tool for verl's tool agent, named by ``rollout.multi_turn.function_tool_path`` (examples/cpu_tool_agent.sh)."""

import ast
import operator

from verl.tools.function_tool import function_tool

OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
# Of an expression: a model may write anything.
LONGEST = 200


def value(expression: str) -> int:
    """An expression of whole numbers with +, -, * and parentheses. Nothing of it is run as Python.

    Raises:
        ValueError: it is none, or too long.
    """
    if len(expression) > LONGEST:
        raise ValueError(f"the expression has {len(expression)} characters; {LONGEST} are allowed")
    try:
        return _value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{expression!r} is no expression") from error


def _value(node: ast.expr) -> int:
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    raise ValueError("only whole numbers, +, -, * and parentheses are allowed")


@function_tool
def calculate(expression: str) -> str:
    """Calculate an expression.

    Args:
        expression: whole numbers with +, - and *, such as 3+8+5.
    """
    return str(value(expression))
