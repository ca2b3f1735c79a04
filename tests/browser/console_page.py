"""The console in a tab of a browser."""

from typing import Any

from tests.browser.chromium import ChromiumTab
from tests.browser.driving import Profile, Tab
from tests.support.installation import Installation
from tests.support.waiting import wait_until

# Collects what the policy of the page (CSP) blocks, what a script does not catch, and requests of the overview.
WATCH = """() => {
  window.problems = [];
  window.overviews = 0;
  document.addEventListener("securitypolicyviolation", (event) => problems.push(event.violatedDirective));
  window.addEventListener("error", (event) => problems.push(String(event.message)));
  window.addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
  const send = window.fetch;
  window.fetch = (...values) => {
    overviews += String(values[0]).endsWith("/overview");
    return send(...values);
  };
}"""
FILL = """(id, fields) => {
  const form = document.getElementById(id);
  for (const [name, value] of Object.entries(fields)) {
    form.elements[name].value = value;
  }
  form.requestSubmit();
}"""
ROWS = """(id) => [...document.querySelectorAll(`#${id} tbody tr`)].map(
  (row) => [...row.cells].map((cell) => cell.textContent),
)"""
FIGURE = """(label) => {
  const term = [...document.querySelectorAll("#figures dt")].find((each) => each.textContent == label);
  return term.nextElementSibling.textContent;
}"""


class Console:
    """The console of a server, opened at `address`."""

    def __init__(self, tab: Tab, address: str) -> None:
        self.tab = tab
        self.address = address

    @property
    def chromium(self) -> ChromiumTab:
        """Its tab, for what only Chromium can do."""
        assert isinstance(self.tab, ChromiumTab)
        return self.tab

    def wait(self) -> "Console":
        """Wait for the first overview."""
        wait_until(lambda: self.text("updated"), "an overview")
        return self

    def text(self, id: str) -> str:
        """The text of an element."""
        return str(self.tab.evaluate("(id) => document.getElementById(id).textContent", id))

    def is_shown(self, id: str) -> bool:
        """Whether an element is not hidden."""
        return not self.tab.evaluate("(id) => document.getElementById(id).hidden", id)

    def rows(self, id: str) -> list[list[str]]:
        """The texts of the cells of a table, by the ID of its place."""
        return list(self.tab.evaluate(ROWS, id))

    def figure(self, label: str) -> str:
        """A figure of the list."""
        return str(self.tab.evaluate(FIGURE, label))

    def submit(self, form: str, **fields: str) -> None:
        """Fill in a form and submit it."""
        self.tab.evaluate(FILL, form, fields)

    def trace(self, **fields: str) -> list[str]:
        """Search, and return the codes that the page explains."""
        self.submit("trace-form", **{"id": "", "channel": "", "user": "", "instance": "", **fields})
        return self.codes()

    def codes(self) -> list[str]:
        """Wait for the result of a search, and return the codes that the page explains."""
        wait_until(
            lambda: self.tab.evaluate("document.querySelector('#trace-result li') != null"), "a result"
        )
        return list(
            self.tab.evaluate("[...document.querySelectorAll('#trace-result dt')].map((e) => e.textContent)")
        )

    @property
    def level(self) -> str:
        """The level of the verdict: good, warning or error."""
        return str(self.tab.evaluate("document.getElementById('verdict-text').dataset.level"))

    @property
    def problems(self) -> list[Any]:
        """What the browser has blocked, and errors of the scripts."""
        return list(self.tab.evaluate("problems"))


def open_console(
    profile: Profile, server: Installation, *, host: str = "127.0.0.1", credentials: str = ""
) -> Console:
    """Open the console of a server, in the front. `credentials`: a name and a password, and an @."""
    address = f"http://{credentials}{host}:{server.admin_port}/console"
    tab = profile.new_tab("about:blank")
    tab.before_pages(WATCH)
    tab.open(address)
    tab.show()
    return Console(tab, address)
