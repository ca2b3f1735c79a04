"""What all tests share."""

import os

from hypothesis import settings

# No deadline: the machine may have other work. In CI, the same examples each time: new ones are looked for elsewhere.
settings.register_profile("anywhere", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "anywhere")
