"""The typed stub of the compiled module and the module itself name the same things, both ways."""

import ast
import functools
import inspect
import pathlib

import marketplace
import pytest
from marketplace import _core

STUB = ast.parse(pathlib.Path(marketplace.__file__).with_name("_core.pyi").read_text())
STUB_CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
STUB_FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}
ALIASES = {"F32", "I32", "U64"}  # type aliases of the stub alone


def names_of_the_stub(body):
    names = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
    return names


def public(names):
    return {name for name in names if not name.startswith("_")}


def kind(node):
    """What a class of the stub says about one of its names."""
    if isinstance(node, ast.AnnAssign):
        return "writable property"
    decorators = {decorator.id for decorator in node.decorator_list}
    if "property" in decorators:
        return "property"
    return "static method" if "staticmethod" in decorators else "method"


def kind_compiled(value):
    """What the compiled class says about the same name."""
    if isinstance(value, property):
        return "property" if value.fset is None else "writable property"
    if isinstance(value, staticmethod) or inspect.isbuiltin(value):
        return "static method"
    return "method"


def test_module_names():
    stub = public(names_of_the_stub(STUB.body)) - ALIASES
    assert stub == public(vars(_core))
    assert "__version__" in names_of_the_stub(STUB.body)
    assert _core.__version__ == marketplace.__version__


@pytest.mark.parametrize("name", STUB_CLASSES)
def test_class_names(name):
    stub, compiled = STUB_CLASSES[name].body, vars(getattr(_core, name))
    assert public(names_of_the_stub(stub)) == public(compiled)
    if "__init__" in names_of_the_stub(stub):
        assert "__init__" in compiled


@pytest.mark.parametrize("name", STUB_CLASSES)
def test_class_members_are_of_the_kind_that_the_stub_says(name):
    compiled = vars(getattr(_core, name))
    for node in STUB_CLASSES[name].body:
        member = node.target.id if isinstance(node, ast.AnnAssign) else getattr(node, "name", "")
        if member and not member.startswith("_"):
            assert kind(node) == kind_compiled(compiled[member]), member


def arguments(function):
    """Names of a stub function's arguments, without self."""
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [argument.arg for argument in every if argument.arg != "self"]


def stub_functions():
    """Every function and method of the stub, with the names that lead to it."""
    for name, node in STUB_FUNCTIONS.items():
        yield (name,), node
    for owner, node in STUB_CLASSES.items():
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and kind(member).endswith("method"):
                yield (owner, member.name), member


@pytest.mark.parametrize(
    "way, node", [pytest.param(*found, id=".".join(found[0])) for found in stub_functions()]
)
def test_argument_names(way, node):
    """pybind11 writes each function's signature into the first line of its docstring."""
    compiled = functools.reduce(getattr, way, _core)
    first = compiled.__doc__.splitlines()[0]
    assert first.startswith(f"{node.name}(")
    parsed = ast.parse(f"def {first.split(' ->')[0]}: ...".replace("...", "None")).body[0]
    assert arguments(parsed) == arguments(node)
