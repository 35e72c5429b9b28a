"""An HTTP server that is told what became of messages, and to whom people say that they want no more of them.

It answers well only when what it heard is on disk; what it means is callbacks.py's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from cdp_pipeline.activation.protocol import DestinationError
from cdp_pipeline.destinations.callbacks import Callback, keep, speaker, told
from cdp_pipeline.destinations.providers import ses
from cdp_pipeline.spec.destination import Smtp
from cdp_pipeline.spec.project import Project

log = logging.getLogger(__name__)
MOST = 1024 * 1024
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Unsubscribe</title><body style="font: 1rem sans-serif; margin: 4rem auto; max-width: 30rem">{body}</body></html>
"""
ASK = """<p>You will get no more of these letters.</p>
<form method="post" action="{action}"><input type="hidden" name="List-Unsubscribe" value="One-Click">
<button>Unsubscribe</button></form>"""
DONE = "<p>Done: you will get no more of these letters.</p>"


def application(
    project: Project, folder: Path, clock: Callable[[], datetime], arrived: Callable[[], None]
) -> web.Application:
    """Takes callbacks at /receipts/<destination>, and one-click unsubscribes (RFC 8058) where the letters' links lead.

    Each is kept in `folder`, then `arrived` is called, then it is answered.
    """
    app = web.Application(client_max_size=MOST)

    async def called(request: web.Request, name: str) -> str | None:
        """What is wrong with a call; None: it is kept."""
        spec = project.destinations[name]
        # What is no text cannot be a signature either.
        headers = {key.lower(): value.encode(errors="replace").decode() for key, value in request.headers.items()}
        callback = Callback(name, clock(), await request.read(), request.raw_path.partition("?")[2], headers)
        module = speaker(spec)
        # In a thread: who called may have to be asked for elsewhere.
        if module is None or not await asyncio.to_thread(module.genuine, spec, callback, callback.at):
            return "not genuine"
        try:
            told(project, callback)
            if isinstance(spec, Smtp) and spec.provider == "ses" and (link := ses.confirmation(callback)):
                await asyncio.to_thread(ses.fetched, link)
                return None
        except ValueError as error:
            return str(error)
        await asyncio.to_thread(keep, folder, callback)
        arrived()
        return None

    async def receipt(request: web.Request) -> web.Response:
        name = request.match_info["destination"]
        spec = project.destinations.get(name)
        if spec is None or speaker(spec) is None or (isinstance(spec, Smtp) and spec.provider is None):
            return web.Response(status=404)
        try:
            wrong = await called(request, name)
        except DestinationError as error:
            log.warning("a call for '%s' could not be proven: %s", name, error)
            return web.Response(status=503)
        if wrong is None:
            # Not 204: to Mailgun and Postmark whatever is not 200 is a reason to call again.
            return web.Response(status=200)
        log.warning("a call for '%s' was refused: %s", name, wrong)
        return web.Response(status=403 if wrong == "not genuine" else 400, text=wrong)

    def unsubscribe(names: list[str]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def clicked(request: web.Request) -> web.Response:
            if (await request.post()).get("List-Unsubscribe") != "One-Click":
                return _page(ASK.format(action=escape(request.raw_path)), 400)
            for name in names:
                if await called(request, name) is None:
                    return _page(DONE, 200)
            return _page("<p>This link is none of ours.</p>", 403)

        return clicked

    async def asked(request: web.Request) -> web.Response:
        """Mail scanners follow links: only the button says no."""
        return _page(ASK.format(action=escape(request.raw_path)), 200)

    app.router.add_post("/receipts/{destination}", receipt)
    paths: dict[str, list[str]] = {}
    for name, spec in project.destinations.items():
        if isinstance(spec, Smtp) and spec.unsubscribe_url is not None:
            paths.setdefault(urlsplit(spec.unsubscribe_url).path or "/", []).append(name)
    for path, names in paths.items():
        app.router.add_post(path, unsubscribe(names))
        app.router.add_get(path, asked)
    return app


def _page(body: str, status: int) -> web.Response:
    return web.Response(status=status, text=PAGE.format(body=body), content_type="text/html")
