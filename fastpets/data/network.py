"""Checks a connection before a download: libraries wait and retry for a minute where there is no network."""

import threading
import urllib.error
import urllib.request

TIMEOUT_S = 5


def check_connection(url: str) -> None:
    """Raises OSError unless the server of `url`, or the proxy that the environment names, answers within seconds."""
    problems: list[OSError] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT_S).close()
        except urllib.error.HTTPError:
            pass  # an answer
        except urllib.error.URLError as error:
            problems.append(error.reason if isinstance(error.reason, OSError) else error)
        except Exception as error:  # also those of http.client, and of addresses that are none
            problems.append(error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}"))

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name has no timeout
    thread.start()
    thread.join(2 * TIMEOUT_S)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {2 * TIMEOUT_S} s")
    if problems:
        raise problems[0]
