import ast
import inspect
import itertools

from schemas import errors
from schemas.errors import ErrorCode


def test_every_code_is_explained_where_it_is_declared():
    tree = ast.parse(inspect.getsource(errors))
    body = next(node.body for node in tree.body if getattr(node, "name", "") == "ErrorCode")
    explained = [
        code.targets[0].id
        for code, text in itertools.pairwise(body)
        if isinstance(code, ast.Assign) and isinstance(text, ast.Expr)
    ]
    assert explained == [code.name for code in ErrorCode]


def test_a_code_is_its_name_in_lower_case():
    assert all(code.value == code.name.lower() for code in ErrorCode)
