"""A Jupyter server of its own for a test: free port, token, settings and data below the test's folder."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

START_S = 60  # a loaded machine; two to four seconds on a quiet one
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# No question about news in the corner, and every cell in the page even where it is scrolled out of sight.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
}


@contextmanager
def serving(root, home, program="server", **environment):
    """Start `jupyter <program>` on the folder `root`, yield (address, token), and end it with its kernels.

    `home`: folder for Jupyter's own files. `environment`: further variables for the server and its kernels.
    """
    for name, values in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    token, port = secrets.token_hex(8), free_port()
    command = [
        sys.executable, "-m", "jupyter", program, "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}",
    ]  # fmt: skip
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**_environment(home), **environment})
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(process, f"{address}/api/status?token={token}", home / "server.log")
            yield address, token
        finally:
            _end(process)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url, timeout_s=60):
    """(status, headers, body) of a GET, past any proxy; an error page is an answer too."""
    try:
        with DIRECT.open(url, timeout=timeout_s) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def _environment(home):
    own = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    return {**os.environ, **{name: str(home / folder) for name, folder in own.items()}}


def _wait(process, url, log):
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if get(url, timeout_s=5)[0] == 200:
                return
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.1)
    raise RuntimeError(f"jupyter did not answer; it wrote:\n{log.read_text(errors='replace')[-2000:]}")


def _end(process):
    process.terminate()  # the server ends its kernels before itself
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
