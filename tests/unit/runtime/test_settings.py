"""The environment: checked early, all faults at once, no value repeated."""

import pytest
from coeval.runtime.settings import RuntimeSettings, SettingsError

GOOD = {"COEVAL_NAMESPACE": "coeval-system", "COEVAL_IMAGE": "localhost/coeval:dev"}


def test_defaults_and_what_controllers_get() -> None:
    settings = RuntimeSettings.from_environment(GOOD | {"PATH": "/bin", "COEVAL_POD_NAME": "operator-0"})
    assert (settings.log_level, settings.http_port, settings.pod_name) == ("INFO", 8080, "operator-0")
    given = settings.controllers()
    assert (given.namespace, given.image, given.image_pull_policy) == (
        "coeval-system", "localhost/coeval:dev", "IfNotPresent",
    )  # fmt: skip
    assert given.block_mover_as_root is False


def test_everything_can_be_set() -> None:
    settings = RuntimeSettings.from_environment(
        GOOD
        | {
            "COEVAL_IMAGE_PULL_POLICY": "Always",
            "COEVAL_BLOCK_MOVER_UID": "0",
            "COEVAL_LOG_FORMAT": "console",
            "COEVAL_HTTP_PORT": "9000",
            "COEVAL_RESYNC_SECONDS": "60",
        }
    )
    assert settings.controllers().block_mover_as_root is True
    assert settings.controllers().image_pull_policy == "Always"
    assert (settings.http_port, settings.resync_seconds) == (9000, 60)


def test_an_empty_variable_is_absent() -> None:
    assert RuntimeSettings.from_environment(GOOD | {"COEVAL_LOG_LEVEL": ""}).log_level == "INFO"
    with pytest.raises(SettingsError, match="COEVAL_NAMESPACE"):
        RuntimeSettings.from_environment(GOOD | {"COEVAL_NAMESPACE": ""})


def test_all_faults_are_told_at_once_without_their_values() -> None:
    with pytest.raises(SettingsError) as wrong:
        RuntimeSettings.from_environment(
            {"COEVAL_IMAGE": "hunter2 with spaces", "COEVAL_BLOCK_MOVER_UID": "5", "COEVAL_HTTP_PORT": "zero"}
        )
    said = str(wrong.value)
    for variable in ("COEVAL_NAMESPACE", "COEVAL_IMAGE", "COEVAL_BLOCK_MOVER_UID", "COEVAL_HTTP_PORT"):
        assert variable in said
    assert "hunter2" not in said
