"""What the tools that have permissions have in common."""

from __future__ import annotations

import copy
from typing import Self

from corral.tools.sandbox import Permissions

__all__ = ["Permitted"]


class Permitted:
    """A tool that may touch what its permissions say. Its constructor sets `_permissions`."""

    _permissions: Permissions

    @property
    def permissions(self) -> Permissions:
        """What the tool may touch."""
        return self._permissions

    def narrowed(self, ceiling: Permissions) -> Self:
        """The same tool, allowed only what `ceiling` allows as well."""
        other = copy.copy(self)
        other._permissions = self._permissions.narrowed(ceiling)
        return other
