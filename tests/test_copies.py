"""A copy has read its libraries before it begins: were they not found, the suite would only be slow, and none would see why."""

from __future__ import annotations

import sys

import copies


def tell() -> None:
    print("torch" in sys.modules, "transformers.models.llama" in sys.modules)


def test_a_copy_has_its_libraries_already() -> None:
    done = copies.run(tell, command=["tell"])
    assert (done.stdout.strip(), done.stderr) == ("True True", "")
