"""Serving the pages with waitress: threads, no reloading, no debugging."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from heedful.errors import DataError

THREADS = 16  # answers wait for the disk, not for the processor
CONNECTIONS = 1_000  # a browser keeps up to six open
LARGEST_BODY = 128 * 2**20  # the files of a new project; anybody can send one, for it is read before it is asked who sends it


def serve(host: str, port: int, *, https: bool, ready: Callable[[int], None], answer: Callable[..., Any] | None = None) -> None:
    """Until interrupted. ready: is told the port once connections are taken. Expects `home.configure` to have run.

    https: a proxy before this server says in X-Forwarded-Proto how people reach it. answer: who answers in the chat, see
    runs.chatting; without it there is no chat.
    """
    import waitress
    from django.core.wsgi import get_wsgi_application

    application = get_wsgi_application()
    if answer is not None:
        from heedful.web.runs import chatting

        chatting.offer(answer)
    try:
        server = waitress.create_server(
            application,
            host=host,
            port=port,
            threads=THREADS,
            connection_limit=CONNECTIONS,
            max_request_body_size=LARGEST_BODY,
            asyncore_use_poll=True,
            clear_untrusted_proxy_headers=not https,
            ident=None,
        )
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise DataError(f"{host}:{port}: cannot be listened on ({told}); choose another --port or --host") from None
    # "localhost" may be two addresses, and then there are two servers in one.
    ready(server.effective_listen[0][1] if hasattr(server, "effective_listen") else server.effective_port)
    try:
        server.run()
    finally:
        server.close()


def address(host: str, port: int, *, names: list[str], https: bool) -> str:
    """Where people reach the pages: by the first of the names given for that, else by the host that is listened on."""
    if names:
        return f"{'https' if https else 'http'}://{names[0]}" + ("" if https else f":{port}")
    here = "localhost" if host in ("0.0.0.0", "::", "", "*") else host
    return f"http://{f'[{here}]' if ':' in here else here}:{port}"


def first_admin_link(base: str) -> str | None:
    """An invitation for the first admin; None when there is one. Nobody gets in by a default password, for there is none.

    The links of earlier starts are worth nothing from then on.
    """
    from django.urls import reverse

    from heedful.web.labelling.invitations import invite
    from heedful.web.labelling.models import Invitation, User

    if User.objects.filter(is_staff=True, is_active=True).exists():
        return None
    Invitation.objects.filter(admin=True, author=None, used_at=None).delete()
    return base + reverse("join", args=[invite(None, admin=True)])
