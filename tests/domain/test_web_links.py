"""A host has one registrable domain, a profile has one URL, and a share button is no profile."""

from __future__ import annotations

import pytest

from enrichd.domain.web_links import host_of, registrable_domain, social_profile

PROFILES = [
    ("https://www.linkedin.com/company/Acme-Corp/", "linkedin", "company", "company/acme-corp"),
    ("http://de.linkedin.com/company/acme?trk=x#top", "linkedin", "company", "company/acme"),
    ("https://linkedin.com/company/acme/about/", "linkedin", "company", "company/acme"),
    ("linkedin.com/company/12345", "linkedin", "company", "company/12345"),
    ("https://www.linkedin.com/in/ada-quill-1a2b", "linkedin", "person", "in/ada-quill-1a2b"),
    ("https://www.linkedin.com/school/mit/", "linkedin", "company", "school/mit"),
    ("https://www.linkedin.com/in/j%C3%BCrgen", "linkedin", "person", "in/j%C3%BCrgen"),
    ("https://twitter.com/Acme", "x", "company", "acme"),
    ("https://mobile.twitter.com/acme?lang=de", "x", "company", "acme"),
    ("https://x.com/acme/", "x", "company", "acme"),
    ("https://www.facebook.com/Acme.Inc/", "facebook", "company", "acme.inc"),
    ("https://de-de.facebook.com/acme", "facebook", "company", "acme"),
    ("https://m.facebook.com/pg/acme/about", "facebook", "company", "acme"),
    ("https://fb.com/acme", "facebook", "company", "acme"),
    (
        "https://facebook.com/profile.php?id=1000123&r=1",
        "facebook",
        "person",
        "profile.php?id=1000123",
    ),
    ("https://instagram.com/acme/?hl=en", "instagram", "company", "acme"),
    ("https://www.youtube.com/@AcmeTV/videos", "youtube", "company", "@acmetv"),
    (
        "https://youtube.com/channel/UCabcdefghijklmnopqrstuv",
        "youtube",
        "company",
        "channel/UCabcdefghijklmnopqrstuv",
    ),
    ("https://www.youtube.com/user/acme", "youtube", "company", "user/acme"),
    ("https://github.com/Acme", "github", "company", "acme"),
    ("https://github.com/orgs/acme/repositories", "github", "company", "acme"),
    ("https://www.crunchbase.com/organization/acme", "crunchbase", "company", "organization/acme"),
    ("https://crunchbase.com/person/ada-quill", "crunchbase", "person", "person/ada-quill"),
    ("https://www.tiktok.com/@acme?lang=en", "tiktok", "company", "@acme"),
    ("https://mastodon.social/@acme", "mastodon", "company", "@acme"),
    ("https://chaos.social/@acme", "mastodon", "company", "@acme"),
    ("https://gravatar.com/adaq", "gravatar", "person", "adaq"),
    ("https://www.xing.com/companies/acme", "other", "company", "pages/acme"),
    ("https://bsky.app/profile/acme.test", "other", "company", "profile/acme.test"),
]

NOT_PROFILES = [
    "https://www.facebook.com/sharer/sharer.php?u=https://acme.test",
    "https://www.facebook.com/sharer.php?u=x",
    "https://www.facebook.com/dialog/feed",
    "https://www.facebook.com/tr?id=123456&ev=PageView",
    "https://www.facebook.com/acme/posts/123456",
    "https://www.facebook.com/groups/acme",
    "https://www.facebook.com/events/99",
    "https://www.facebook.com/",
    "https://twitter.com/intent/tweet?text=hi",
    "https://twitter.com/share?url=x",
    "https://twitter.com/hashtag/acme",
    "https://twitter.com/acme/status/1234",
    "https://x.com/login",
    "https://x.com/home",
    "https://x.com/a_name_longer_than_fifteen",
    "https://www.linkedin.com/shareArticle?mini=true&url=x",
    "https://www.linkedin.com/sharing/share-offsite/?url=x",
    "https://www.linkedin.com/feed/",
    "https://www.linkedin.com/posts/acme_hello-activity-1",
    "https://www.linkedin.com/pulse/acme",
    "https://www.linkedin.com/company/",
    "https://instagram.com/p/Cabc/",
    "https://instagram.com/reel/Cabc/",
    "https://instagram.com/explore/tags/acme/",
    "https://instagram.com/accounts/login/",
    "https://www.youtube.com/watch?v=abc",
    "https://www.youtube.com/embed/abc",
    "https://www.youtube.com/shorts/abc",
    "https://youtu.be/abc",
    "https://github.com/acme/widget",
    "https://github.com/login",
    "https://gist.github.com/acme",
    "https://www.tiktok.com/@acme/video/123",
    "https://mastodon.social/@acme/1234",
    "https://mastodon.social/share?text=x",
    "https://pinterest.com/pin/create/button/?url=x",
    "https://notlinkedin.com/company/acme",
    "https://linkedin.com.evil.test/company/acme",
    "https://acme.test/company/acme",
    "ftp://github.com/acme",
    "https://user:password@github.com/acme",
    "javascript:alert(1)//github.com/acme",
    "mailto:sales@linkedin.com",
    "https://[::1/acme",
    "/company/acme",
    "",
    "https://github.com/" + "a" * 3000,
]


@pytest.mark.parametrize(("url", "network", "kind", "tail"), PROFILES)
def test_a_profile_has_one_canonical_form(url, network, kind, tail):
    profile = social_profile(url)

    assert profile is not None
    assert (profile["network"], profile["kind"]) == (network, kind)
    assert profile["url"].startswith("https://")
    assert profile["url"].endswith("/" + tail)
    assert social_profile(profile["url"]) == profile


@pytest.mark.parametrize("url", NOT_PROFILES)
def test_share_login_post_and_foreign_links_are_no_profiles(url):
    assert social_profile(url) is None


def test_twitter_and_x_are_the_same_profile():
    assert social_profile("http://www.twitter.com/Acme?s=20") == social_profile(
        "https://x.com/acme"
    )


def test_the_caller_says_whose_profiles_it_collects():
    found = social_profile("https://github.com/adaq", assume="person")

    assert found == {
        "network": "github",
        "kind": "person",
        "url": "https://github.com/adaq",
        "handle": "adaq",
    }


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("https://www.acme.co.uk/about?x=1", "acme.co.uk"),
        ("acme.com", "acme.com"),
        ("ACME.COM.", "acme.com"),
        ("https://user:pw@shop.acme.de:8443/", "acme.de"),
        ("info@mail.acme.fr", "acme.fr"),
        ("https://acme.github.io/docs", "acme.github.io"),
        ("https://www.bücher.example", "xn--bcher-kva.example"),
        ("www.acme.test", "acme.test"),
        ("github.io", None),
        ("co.uk", None),
        ("localhost", None),
        ("127.0.0.1", None),
        ("http://[::1]/", None),
        ("http://0x7f.1/", None),
        ("1.2.3.4.5", None),
        ("acme..com", None),
        ("-acme.com", None),
        ("acme .com", None),
        ("a" * 300 + ".com", None),
        ("ü" * 2000 + ".com", None),
        ("", None),
    ],
)
def test_the_registrable_domain_of_a_url_or_host(text, domain):
    assert registrable_domain(text) == domain


def test_a_registry_knows_nothing_of_hosting_platforms():
    assert registrable_domain("acme.github.io", private_suffixes=False) == "github.io"


def test_a_host_is_given_in_ascii_and_lower_case():
    assert host_of("HTTPS://WWW.Bücher.Example/") == "www.xn--bcher-kva.example"
