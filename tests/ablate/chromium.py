"""A headless Chromium that is on the machine already; nothing is ever downloaded for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
MISSING = [str(path) for path in (BROWSER, DRIVER) if not path.is_file()]
needed = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)} (Debian: chromium, chromium-driver)")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A fresh browser that keeps the logs of its console and its network."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SE_OFFLINE", "true")
        patch.setenv("SE_AVOID_STATS", "true")
        options = webdriver.ChromeOptions()
        options.binary_location = str(BROWSER)
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        browser = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        try:
            yield browser
        finally:
            browser.quit()


def console(browser: webdriver.Chrome) -> list[str]:
    """What the console said since it was last asked."""
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser: webdriver.Chrome) -> list[str]:
    """The addresses that were asked for since the last time, but for data in the page itself."""
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [entry["params"]["request"]["url"] for entry in sent if entry["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("data:")]


def prefer(browser: webdriver.Chrome, scheme: str) -> None:
    """Light or dark."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def axe(browser: webdriver.Chrome) -> list[str]:
    """What axe-core finds wrong with the page, and contrasts that it cannot judge: rule, element and reason.

    Left out are contrasts in cells that are scrolled away, span rows or hold one letter: it can judge these nowhere.
    """
    source = Path(str(distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js")))
    browser.execute_script(source.read_text(encoding="utf-8"))
    run = """
        const done = arguments[0], known = ["elmPartiallyObscured", "bgOverlap", "shortTextContent"];
        const said = (rule) => rule.nodes.map((node) => {
            const checks = [...node.any, ...node.all, ...node.none];
            const idle = checks.every((check) => known.includes(check.data?.messageKey));
            return idle ? "" : `${rule.id}: ${node.html.slice(0, 200)}: ${checks.map((check) => check.message)}`;
        });
        axe.run().then((found) => {
            const unsure = found.incomplete.filter((rule) => rule.id === "color-contrast");
            done([...found.violations, ...unsure].flatMap(said).filter(Boolean));
        }, (error) => done([String(error)]));
    """
    found: list[str] = browser.execute_async_script(run)
    return found
