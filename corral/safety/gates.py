"""Gates: where shields stand.

A gate always gets a verdict, and a shield that fails, hangs or babbles has said unsafe.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import anyio

from corral.errors import CorralError
from corral.events import Gate, ShieldChecked, Verdict
from corral.safety.shield import Said, Shield

__all__ = ["ask"]


async def ask(
    shield: Shield, gate: Gate, conversation: Sequence[Said], *, seconds: float
) -> ShieldChecked:
    """Ask a shield, for at most `seconds`.

    Never raises but to be cancelled: failures come back as blocked.
    """
    started = time.monotonic()
    blocked = True
    try:
        with anyio.fail_after(seconds):
            verdict = await shield.check(conversation)
        blocked = shield.blocks(verdict)
    except TimeoutError:
        verdict = Verdict(safe=False, reason=f"the shield gave no verdict in {seconds:g} seconds")
    except CorralError as error:
        verdict = Verdict(safe=False, reason=str(error))
    except Exception as error:  # whatever else broke in the shield: unsafe, and its cause on record
        verdict = Verdict(safe=False, reason=f"the shield failed: {type(error).__name__}: {error}")
    return ShieldChecked(
        gate=gate,
        shield=shield.name,
        verdict=verdict,
        blocked=blocked,
        seconds=round(time.monotonic() - started, 3),
    )
