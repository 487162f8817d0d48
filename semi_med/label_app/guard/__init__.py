"""A wall round MONAI Label's server: what is not expressly allowed does not reach it.

MONAI Label was made for a laboratory whose people trust one another. Out of the box it listens on every network, lets
any web page read its answers, and takes paths, ids, archives and settings from a request as they come. `guarded` wraps
its application in one that checks who asks, what is asked and what comes back.

`access` says who may ask, `endpoints` what may be asked, `params` with which settings, `bodies` and `uploads` with
which files; `lanes` lets inferences wait for one another, `answers` and `replies` say what goes out. `application`
puts them together. Only parsing a form needs Starlette: the rules can be tested without MONAI Label.
"""

from semi_med.label_app.guard.access import SERVER, check_start, new_token
from semi_med.label_app.guard.application import guarded
from semi_med.label_app.guard.limits import Limits

__all__ = ["SERVER", "Limits", "check_start", "guarded", "new_token"]
