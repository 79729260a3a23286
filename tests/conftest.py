"""Disks of every kind, for the tests of what is written to them."""

import subprocess

import pytest


@pytest.fixture
def mounted(tmp_path_factory):
    """Mount a file system of its own with such options as "size=1m" or "ro"; its folder."""
    folders = []

    def mount(options):
        folder = tmp_path_factory.mktemp("disk")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting takes root")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)
