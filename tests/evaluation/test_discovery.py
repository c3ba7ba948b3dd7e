import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import InputError
from palate.evaluation.discovery import false_discovery_q, mutual_information


def test_information_of_known_tables():
    same, apart = [[50, 0], [0, 50]], [[25, 25], [25, 25]]
    np.testing.assert_allclose(mutual_information([same, apart]), [1.0, 0.0], atol=1e-12)


def test_information_is_the_g_statistic_of_scipy():
    from scipy.stats import chi2_contingency

    table = np.array([[30, 12], [18, 40]])
    g = chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
    np.testing.assert_allclose(mutual_information(table), g / (2 * table.sum() * np.log(2)))


def test_negative_counts_are_refused():
    with pytest.raises(InputError, match="negative"):
        mutual_information([[1, -1], [0, 1]])


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=30))
def test_q_values_are_those_of_scipy(p):
    from scipy.stats import false_discovery_control

    np.testing.assert_allclose(false_discovery_q(p), false_discovery_control(p))
