"""The methods of an interface with those it inherits, and the classes that its class can extend."""

from collections.abc import Mapping
from typing import NamedTuple

from capnp_rig.client.stubs.model import Definition, Interface, Method, Ref


class OwnedMethod(NamedTuple):
    """A method, and the interface that declares it."""

    owner: Ref
    method: Method


class Inheritance:
    """The interfaces among some definitions."""

    def __init__(self, definitions: Mapping[Ref, Definition]) -> None:
        self._interfaces = {
            ref: each for ref, each in definitions.items() if isinstance(each, Interface)
        }
        self._numbers = {ref: number for number, ref in enumerate(self._interfaces)}

    def methods(self, ref: Ref) -> list[OwnedMethod]:
        """Return the methods of an interface: of two with a name, the nearer, as a client does.

        Those that an interface inherits are in the order in which they are in its base, as checkers
        demand of overloads.
        """
        by_name: dict[str, OwnedMethod] = {}
        waiting = [ref]
        for each in waiting:
            for method in self._interfaces[each].methods:
                by_name.setdefault(method.name, OwnedMethod(each, method))
            waiting += [base for base in self._interfaces[each].bases if base not in waiting]
        return sorted(by_name.values(), key=lambda each: self._place(each.owner))

    def bases(self, ref: Ref) -> list[Ref]:
        """Return the interfaces that the class of an interface extends.

        A base is left out where one of its methods is hidden: a checker takes the class for none of
        that kind. They are in one order everywhere, so that Python has an order for all classes.
        """
        methods = set(self.methods(ref))
        bases = [base for base in self._interfaces[ref].bases if methods >= {*self.methods(base)}]
        return sorted(dict.fromkeys(bases), key=self._place)

    def _place(self, ref: Ref) -> tuple[int, int]:
        return -self._depth(ref), self._numbers[ref]

    def _depth(self, ref: Ref) -> int:
        return 1 + max(map(self._depth, self._interfaces[ref].bases), default=0)
