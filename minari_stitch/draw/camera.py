"""A camera in MuJoCo that draws off-screen, with a display or without one."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minari_stitch.errors import RenderError
from minari_stitch.sim.poses import Poser

Draw = Callable[..., np.ndarray]
"""Observation `(S,)`, x of the root in m, and x that the camera looks at, by default the same -> `(H, W, 3)` uint8."""

SIZE = (360, 300)
"""Height and width of a picture in pixels."""
_CAMERAS = {  # distance in m, point looked at, elevation and azimuth in degrees
    "Hopper": (2.6, (-0.12, 0.0, 0.83), -14, 90),
    "Walker2d": (2.4, (-0.1, 0.0, 0.66), -14, 90),
    "HalfCheetah": (2.7, (0.1, 0.0, 0.33), -14, 90),
    "AdroitHandPen": (0.6, (0.05, -0.2, 0.22), -30, -45),
}
_PROBE = "import sys, importlib as i; i.import_module('mujoco.' + sys.argv[1]).GLContext(8, 8).make_current()"


@functools.cache
def _works(backend: str) -> bool:
    """Whether a GL backend makes a context; asked of another process, since a failure spoils this one for the next."""
    command = [sys.executable, "-c", _PROBE, backend]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def backend() -> str:
    """Name of the GL backend to draw with: `MUJOCO_GL` where set, else what works here.

    Raises:
        RenderError: None works.
    """
    if chosen := os.environ.get("MUJOCO_GL"):
        candidates: tuple[str, ...] = (chosen,)
    elif sys.platform == "darwin":
        candidates = ("cgl",)
    elif sys.platform == "win32" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        candidates = ("glfw", "egl", "osmesa")
    else:
        candidates = ("egl", "osmesa")
    for name in candidates:
        if _works(name):
            return name
    raise RenderError(
        f"MuJoCo cannot draw here: no OpenGL with {' or '.join(candidates)}. Install libegl1 and set MUJOCO_GL=egl, or "
        "libosmesa6 and set MUJOCO_GL=osmesa (apt-get install libegl1 libosmesa6); returns need neither."
    )


@contextlib.contextmanager
def camera(body: Poser, name: str) -> Iterator[Draw]:
    """A camera that goes along a floor that stays where it is.

    Args:
        body: What puts the simulator where an observation says.
        name: What `backend` found.

    Yields:
        The function that draws.
    """
    import mujoco

    gl: Any = mujoco
    env, (height, width) = body.env, SIZE
    context = importlib.import_module(f"mujoco.{name}").GLContext(width, height)
    context.make_current()
    env.model.vis.global_.offheight, env.model.vis.global_.offwidth = SIZE
    drawing = gl.MjrContext(env.model, gl.mjtFontScale.mjFONTSCALE_100)
    gl.mjr_setBuffer(gl.mjtFramebuffer.mjFB_OFFSCREEN, drawing)
    scene, view, look = gl.MjvScene(env.model, 1000), gl.MjrRect(0, 0, width, height), gl.MjvCamera()
    # A mirrored robot confuses, and far from the light its shadow falls to pieces.
    scene.flags[gl.mjtRndFlag.mjRND_REFLECTION] = scene.flags[gl.mjtRndFlag.mjRND_SHADOW] = 0
    setting = next(value for key, value in _CAMERAS.items() if env.spec.id.startswith(key))
    look.distance, target, look.elevation, look.azimuth = setting

    def draw(observation: np.ndarray, x: float, at: float | None = None) -> np.ndarray:
        body.set(observation, x)
        look.lookat[:] = target
        look.lookat[0] += x if at is None else at
        everything = gl.mjtCatBit.mjCAT_ALL
        gl.mjv_updateScene(env.model, env.data, gl.MjvOption(), gl.MjvPerturb(), look, everything, scene)
        gl.mjr_render(view, scene, drawing)
        picture = np.empty((height, width, 3), np.uint8)
        gl.mjr_readPixels(picture, None, view, drawing)
        return picture[::-1]

    try:
        yield draw
    finally:
        # In this order, and now: what is left for later would be freed in the next camera's context.
        drawing.free()
        context.free()
