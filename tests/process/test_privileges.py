"""Giving up root: afterwards the server can do all it needs, and nothing more."""

import grp
import json
import os
import pwd
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from aphlict.config.settings import ServerSettings, Settings
from aphlict.errors import ConfigError
from aphlict.process import privileges
from tests.support import certificates
from tests.support.installation import Installation, installed
from tests.support.waiting import wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")

USER = "nobody"


def settings(**changes: str) -> Settings:
    """Settings that name a user or a group."""
    servers = (ServerSettings(type="client", port=1), ServerSettings(type="admin", port=2))
    return Settings(servers=servers, pidfile="/nowhere", **changes)  # type: ignore[arg-type]


@pytest.fixture
def unprivileged() -> Iterator[Installation]:
    """A server that gives up root, in a folder that others can reach too: pytest's own are root's alone."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with installed(Path(folder), user=USER) as made:
            yield made


@pytest.mark.parametrize("key", ["user", "group"])
def test_an_unknown_name_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f'{key} is "no-such-name", expected a {key} of this machine'):
        privileges.find_owner(settings(**{key: "no-such-name"}))


@as_root
def test_root_without_a_user_is_warned() -> None:
    assert privileges.find_owner(settings()) is None
    assert "the server runs as root" in str(privileges.find_warning(settings()))
    assert privileges.find_warning(settings(user=USER)) is None


@as_root
def test_the_users_own_group_is_taken_unless_another_is_named() -> None:
    user, group = pwd.getpwnam(USER), grp.getgrnam("daemon")
    assert privileges.find_owner(settings(user=USER)) == privileges.Owner(user.pw_uid, user.pw_gid, USER)
    assert privileges.find_owner(settings(user=USER, group="daemon")) == privileges.Owner(
        user.pw_uid, group.gr_gid, USER
    )


@as_root
@pytest.mark.parametrize("workers", [1, 2])
def test_no_process_keeps_privileges_of_root(unprivileged: Installation, workers: int) -> None:
    """Nor capabilities, nor root's groups; also one that takes the place of another."""
    unprivileged.write(user=USER, workers=workers)
    supervisor = unprivileged.start()
    user = pwd.getpwnam(USER)
    first = supervisor.children()[0]
    first.kill()
    count = 1 if workers == 1 else workers + 1
    wait_until(lambda: first not in (now := supervisor.children()) and len(now) == count, "another one")
    for process in (supervisor, *supervisor.children()):
        assert set(process.uids()) == {user.pw_uid}
        assert set(process.gids()) == {user.pw_gid}
        found = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert set(map(int, found["Groups"].split())) <= set(os.getgrouplist(USER, user.pw_gid))
        assert {int(found[each], 16) for each in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}


@as_root
def test_its_files_stay_usable(unprivileged: Installation) -> None:
    supervisor = unprivileged.start()
    uid = pwd.getpwnam(USER).pw_uid
    for path in (
        unprivileged.log,
        unprivileged.log.parent,
        unprivileged.pidfile,
        unprivileged.pidfile.parent,
    ):
        assert path.stat().st_uid == uid, path
    unprivileged.log.rename(unprivileged.log.with_suffix(".1"))
    supervisor.send_signal(signal.SIGUSR1)
    wait_until(unprivileged.log.exists)
    assert unprivileged.run("stop").returncode == 0
    assert not unprivileged.pidfile.exists()


@as_root
def test_a_pidfile_in_a_folder_of_root_is_emptied(tmp_path: Path, unprivileged: Installation) -> None:
    unprivileged.pidfile.parent.mkdir()
    unprivileged.start()
    assert unprivileged.run("stop").returncode == 0
    assert unprivileged.pidfile.read_text() == ""
    done = unprivileged.run("start")
    assert (done.returncode, "stale" in done.stderr) == (0, False)


@as_root
def test_files_of_an_earlier_start_as_root_are_handed_over(unprivileged: Installation) -> None:
    unprivileged.write()
    unprivileged.start()
    unprivileged.run("stop")
    unprivileged.write(user=USER)
    assert unprivileged.log.stat().st_uid == 0
    unprivileged.start()
    assert unprivileged.log.stat().st_uid == pwd.getpwnam(USER).pw_uid


@as_root
def test_a_key_that_only_root_may_read_serves(tmp_path: Path, unprivileged: Installation) -> None:
    files = certificates.self_signed().write(tmp_path / "tls")
    Path(files.key).chmod(0o600)
    servers = json.loads(unprivileged.config.read_text())["servers"]
    servers[0] |= files.settings()
    unprivileged.write(user=USER, servers=servers)
    unprivileged.start()
    worker = unprivileged.worker()
    worker.kill()
    unprivileged.next_worker(worker)


@as_root
@pytest.mark.parametrize("planted", ["symbolic", "hard"])
def test_links_of_the_user_do_not_change_owner(
    tmp_path: Path, unprivileged: Installation, planted: str
) -> None:
    valuable = tmp_path / "valuable"
    valuable.write_text("root's")
    valuable.chmod(0o600)
    unprivileged.log.parent.mkdir()
    if planted == "hard":
        unprivileged.log.hardlink_to(valuable)
    else:
        unprivileged.log.symlink_to(valuable)
    done = unprivileged.run("start")
    assert done.returncode == 1
    assert "cannot write the log file" in done.stderr
    assert (valuable.stat().st_uid, stat.S_IMODE(valuable.stat().st_mode)) == (0, 0o600)
    assert valuable.read_text() == "root's"


@as_root
@pytest.mark.parametrize("swapped", ["folder", "folder above"])
@pytest.mark.parametrize("key", ["logs", "pidfile"])
def test_a_folder_that_the_user_swapped_is_not_followed_by_root(
    unprivileged: Installation, key: str, swapped: str
) -> None:
    user = pwd.getpwnam(USER)
    target, home = unprivileged.folder / "target", unprivileged.folder / "home"
    valuable = target / "run" / "aphlict.file"
    valuable.parent.mkdir(parents=True)
    valuable.write_text("root's")
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    if swapped == "folder":
        (home / "run").symlink_to(target / "run")
    else:
        (home / "in").symlink_to(target)
    path = str(home / ("run" if swapped == "folder" else "in/run") / valuable.name)
    unprivileged.write(user=USER, **{key: path if key == "pidfile" else [{"path": path}]})
    done = unprivileged.run("start")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done
    assert path in done.stderr
    assert valuable.read_text() == "root's"
    assert valuable.stat().st_uid == 0
    assert list(target.rglob("*")) == [valuable.parent, valuable], "nothing was made there"


@as_root
@pytest.mark.parametrize("key", ["logs", "pidfile"])
def test_missing_folders_in_the_users_are_made_with_the_users_rights(
    unprivileged: Installation, key: str
) -> None:
    user = pwd.getpwnam(USER)
    home = unprivileged.folder / "home"
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    path = home / "a" / "b" / "file"
    unprivileged.write(user=USER, **{key: str(path) if key == "pidfile" else [{"path": str(path)}]})
    assert unprivileged.run("start").returncode == 0
    assert {each.stat().st_uid for each in (path, path.parent, path.parent.parent)} == {user.pw_uid}
    assert unprivileged.run("stop", "--pidfile", str(path if key == "pidfile" else unprivileged.pidfile))


@as_root
@pytest.mark.parametrize(
    ("mode", "uid", "gid", "expected"),
    [
        (0o755, 0, 0, True),
        (0o775, 0, 0, True),  # /var/log of some distributions
        (0o755, "user", 0, False),
        (0o755, "another", 0, False),
        (0o775, 0, "user", False),
        (0o777, 0, 0, False),
        (0o1777, 0, 0, False),
    ],
)
def test_folders_out_of_the_users_reach(
    unprivileged: Installation, mode: int, uid: int | str, gid: int | str, expected: bool
) -> None:
    user, another = pwd.getpwnam(USER), pwd.getpwnam("daemon")
    uids: dict[int | str, int] = {0: 0, "user": user.pw_uid, "another": another.pw_uid}
    gids: dict[int | str, int] = {0: 0, "user": user.pw_gid}
    owner = privileges.Owner(user.pw_uid, user.pw_gid, USER)
    above = unprivileged.folder / "above"
    (above / "below").mkdir(parents=True)
    (unprivileged.folder / "link").symlink_to("./above/../above/below")
    os.chown(above, uids[uid], gids[gid])
    above.chmod(mode)
    assert privileges.is_out_of_reach(above, owner) is expected
    # What is root's in a folder with the sticky bit stays where it is.
    assert privileges.is_out_of_reach(above / "below", owner) is (expected or mode == 0o1777)
    assert privileges.is_out_of_reach(unprivileged.folder / "link", owner) is (expected or mode == 0o1777)
    assert not privileges.is_out_of_reach(above / "missing", owner)
    os.lchown(unprivileged.folder / "link", user.pw_uid, user.pw_gid)
    assert not privileges.is_out_of_reach(unprivileged.folder / "link", owner)


@as_root
def test_circular_links(unprivileged: Installation) -> None:
    (unprivileged.folder / "one").symlink_to("two")
    (unprivileged.folder / "two").symlink_to("one")
    assert not privileges.is_out_of_reach(unprivileged.folder / "one", privileges.Owner(1, 1, None))


@as_root
@pytest.mark.parametrize("key", ["logs", "pidfile"])
def test_a_folder_that_the_user_cannot_enter_is_an_error(unprivileged: Installation, key: str) -> None:
    closed = unprivileged.folder / "closed"
    closed.mkdir(mode=0o700)
    os.chown(closed, pwd.getpwnam("daemon").pw_uid, 0)
    path = str(closed / "below" / "file")
    unprivileged.write(user=USER, **{key: path if key == "pidfile" else [{"path": path}]})
    done = unprivileged.run("start")
    assert (done.returncode, "unexpected" in done.stderr) == (1, False), done
    assert str(closed / "below") in done.stderr
    assert not list(closed.iterdir())
