from __future__ import annotations

import pytest

from delen.daemon.build_runtime import policy_settings
from delen.daemon.config import config_of
from delen.errors import ConfigError


def test_tuned_thresholds_have_the_budget_and_the_level_of_floors() -> None:
    given = {"policies.exit": "tuned", "policies.disagreement": 0.02, "policies.guarantee": 0.9}
    assert policy_settings(config_of(given)).options == {"budget": 0.02, "level": 0.9}


def test_apparate_needs_audits() -> None:
    given = {"policies.exit": "apparate"}
    assert policy_settings(config_of(given)).options == {"budget": 0.01}
    with pytest.raises(ConfigError, match=r"policies\.audit_fraction"):
        policy_settings(config_of({**given, "policies.audit_fraction": 0.0}))
