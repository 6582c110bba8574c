import pytest

pytest.register_assert_rewrite("ablate.testing")
