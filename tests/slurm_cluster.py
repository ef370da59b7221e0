"""A SLURM of one node for tests: everything in one private folder, on loopback only, without accounting.

Debian's packages are installed if this is root and they are missing; nothing outside the folder is configured. Times
are SLURM's shortest, so that a requeue takes seconds.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "srun", "scontrol", "scancel", "sinfo")
PACKAGES = ("slurm-wlm", "munge")
NODE = "n0"

CONFIGURATION = """
ClusterName=workbench
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
SlurmdTimeout=15
SlurmdParameters=config_overrides
KillWait=2
MinJobAge=300
MaxArraySize=3
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SchedulerParameters=sched_min_interval=0,sched_interval=1,bf_interval=1,batch_sched_delay=0
NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes={node} Default=YES MaxTime=INFINITE DefMemPerCPU=500 State=UP
"""


class Unavailable(Exception):
    """Why there is no SLURM here."""


def install() -> None:
    """Make sure that the programs are there; Unavailable says why not."""
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if not missing:
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise Unavailable(f"no {missing[0]} here, and only root with apt-get can install {' and '.join(PACKAGES)}")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", "-q", *command], env=quiet, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise Unavailable(f"apt-get {command[0]} failed: {' '.join(done.stderr.split())[-200:]}")


class Slurm:
    """`start` and `stop`; in between, every SLURM command in this environment is of this cluster."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))

    def start(self) -> None:
        self.folder.chmod(0o755)  # munged wants its socket where all can reach it
        for name, mode in (("state", 0o700), ("spool", 0o755), ("munge", 0o755), ("key", 0o700)):
            (self.folder / name).mkdir()
            (self.folder / name).chmod(mode)
        ports = _free_ports("controller", "daemon")
        text = CONFIGURATION.format(folder=self.folder, user=getpass.getuser(), node=NODE, **ports)
        (self.folder / "slurm.conf").write_text(text)
        os.environ["SLURM_CONF"] = str(self.folder / "slurm.conf")
        self._munge()
        subprocess.run(["slurmctld"], check=True, capture_output=True)
        self.start_node()

    def _munge(self) -> None:
        key = self.folder / "key" / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        places = {
            "socket": self.folder / "munge" / "socket",
            "key-file": key,
            "pid-file": self.folder / "munge" / "pid",
            "log-file": self.folder / "key" / "log",
            "seed-file": self.folder / "key" / "seed",
        }
        options = [f"--{name}={place}" for name, place in places.items()]
        done = subprocess.run(["munged", "--num-threads=2", *options], capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"munged does not start: {done.stderr.strip()}")

    def start_node(self) -> None:
        subprocess.run(["slurmd", "-N", NODE], check=True, capture_output=True)
        self.wait(lambda: said("sinfo", "-h", "-o", "%T").split() in (["idle"], ["mixed"], ["allocated"]), 60)

    def kill_node(self) -> None:
        """The node dies: its daemon, and the daemons and processes of its jobs."""
        daemon = psutil.Process(int((self.folder / "slurmd.pid").read_text()))
        _kill([daemon, *self._steps()])

    def _steps(self) -> list[psutil.Process]:
        """The daemons of this cluster's steps, and all that runs below them."""
        daemons = [process for process in psutil.process_iter() if self._is_step(process)]
        return [each for process in daemons for each in (process, *process.children(recursive=True))]

    def _is_step(self, process: psutil.Process) -> bool:
        with contextlib.suppress(OSError, psutil.Error):
            # not psutil's environ(): the daemon writes its title over the beginning of it
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            return process.name() == "slurmstepd" and str(self.folder).encode() in environment
        return False

    def stop(self) -> None:
        """Jobs first: what they started would otherwise outlive the daemons."""
        said("scancel", "--quiet", "-u", getpass.getuser())
        with contextlib.suppress(TimeoutError):
            self.wait(lambda: not said("squeue", "-h"), 20)
        for name in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
            with contextlib.suppress(OSError, ValueError, psutil.Error):
                process = psutil.Process(int((self.folder / name).read_text()))
                process.terminate()
                _ended(process)
        _kill(self._steps())
        os.environ.pop("SLURM_CONF", None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("*.log"))

    def wait(self, condition, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds} s for SLURM: {self.log()[-2000:]}")
            time.sleep(0.1)


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def said(*command: str) -> str:
    """What a command of SLURM prints; nothing if it fails."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, timeout=15).stdout
    return ""


def _free_ports(*names: str) -> dict[str, int]:
    """Name -> number, no two alike: all are held until the last is known."""
    with contextlib.ExitStack() as held:
        found = {name: held.enter_context(socket.socket()) for name in names}
        for one in found.values():
            one.bind(("127.0.0.1", 0))
        return {name: one.getsockname()[1] for name, one in found.items()}


def _ended(process: psutil.Process, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            process.send_signal(signal.SIGKILL)
            return
        time.sleep(0.1)
