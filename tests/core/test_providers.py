"""`scanning/core/providers.py`: where providers are, and what is signed for there."""

import pytest

from scanning.config.settings import EngineSettings, LimitsSection
from scanning.core import pacing
from scanning.core.pacing import EndpointLimits
from scanning.core.providers import PROVIDERS, signing_region_of
from tests.support.processes import ROOT


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [
        ("fra1.digitaloceanspaces.com", "fra1"),
        ("fsn1.your-objectstorage.com", "fsn1"),
        ("s3.gra.io.cloud.ovh.net", "gra"),
        ("https://s3.fr-par.scw.cloud", "fr-par"),
        ("s3.eu-central-1.wasabisys.com", "eu-central-1"),
        ("s3.eu-central-003.backblazeb2.com", "eu-central-003"),
        ("s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("0123456789abcdef.r2.cloudflarestorage.com", "auto"),
        ("0123456789abcdef.eu.r2.cloudflarestorage.com", "auto"),
        ("s3.gra.perf.cloud.ovh.net", "gra"),
        ("us-iad-1.linodeobjects.com", "us-iad-1"),
        ("us-iad-1.linodeobjects.com.evil.org", None),
        ("localhost:9000", None),
    ],
)
def test_a_providers_endpoint_says_what_to_sign_for(endpoint, region):
    assert signing_region_of(endpoint) == region


def test_every_provider_names_its_documentation():
    assert all(provider.documentation.startswith("https://") for provider in PROVIDERS.values())


def test_published_limits_count_unless_others_are_configured():
    configured = EngineSettings(limits=LimitsSection(endpoints="nyc3.*=7/8"))
    limits = {
        host: pacing.find_limits(f"{host}.digitaloceanspaces.com", configured.endpoint_limits)
        for host in ("fra1", "nyc3")
    }
    assert limits == {"fra1": EndpointLimits(300, 0), "nyc3": EndpointLimits(7, 8)}


def test_the_documentation_has_each_pattern_with_its_address():
    page = (ROOT / "docs/how-to/endpoints.md").read_text(encoding="utf-8")
    table = page.partition("## Providers")[2].partition("## Set it")[0]
    missing = [
        title
        for title, provider in PROVIDERS.items()
        if provider.pattern and f"`{provider.pattern}`" not in table
    ]
    assert missing == []
    named = {p.documentation for p in PROVIDERS.values() if p.documentation in table}
    assert len(named) >= len(PROVIDERS) - 3  # R2's jurisdictions are of one table with R2
