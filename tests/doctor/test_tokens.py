"""The doctor's checks of a server that requires tokens."""

from tests.cli.test_token import guard, make
from tests.support.doctor import Doctor
from tests.support.installation import Installation
from tests.support.tokens import key_file


def test_with_a_token(installation: Installation, doctor: Doctor) -> None:
    guard(installation, key_file(installation.folder))
    installation.start()
    token = make(installation, "--channel", "aphlict-doctor-*")
    diagnosis = doctor.examine(installation, "--token", token)
    assert diagnosis.status == 0
    for check in ("keys", "delivery", "polling", "events"):
        assert diagnosis.verdicts(check) == ["ok"]


def test_without_a_valid_token(installation: Installation, doctor: Doctor) -> None:
    guard(installation, key_file(installation.folder))
    installation.start()
    doctor.examine(installation).expect("commands", "token_missing", "aphlict-doctor-*")
    wrong = make(installation, "--channel", "demo")
    doctor.examine(installation, "--token", wrong).expect("commands", "channel_forbidden", "--token")
    doctor.examine(installation, "--token", "a.b.c").expect("upgrade", "token_invalid", "--token")


def test_an_unusable_key(installation: Installation, doctor: Doctor) -> None:
    guard(installation, key_file(installation.folder, b"short"))
    diagnosis = doctor.examine(installation)
    assert diagnosis.status == 77
    assert (diagnosis.first_failure["check"], diagnosis.first_failure["code"]) == ("keys", "config_invalid")
