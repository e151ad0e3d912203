"""Serving the pages with waitress: threads, no reloading, no debugging."""

from __future__ import annotations

from collections.abc import Callable

from heedful.errors import DataError

THREADS = 16  # answers wait for the disk, not for the processor


def serve(host: str, port: int, *, ready: Callable[[str], None]) -> None:
    """Until interrupted. ready: is told the address once connections are taken. Expects `home.configure` to have run."""
    import waitress
    from django.core.wsgi import get_wsgi_application

    try:
        server = waitress.create_server(get_wsgi_application(), host=host, port=port, threads=THREADS, ident=None)
    except OSError as error:
        raise DataError(f"{host}:{port}: cannot be listened on ({error.strerror}); choose another --port or --host") from None
    ready(address(host, server.effective_port))
    try:
        server.run()
    finally:
        server.close()


def address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def first_admin_link(base: str) -> str | None:
    """An invitation for the first admin; None when there is one. Nobody gets in by a default password, for there is none."""
    from django.urls import reverse

    from heedful.web.labelling.invitations import invite
    from heedful.web.labelling.models import User

    if User.objects.filter(is_staff=True, is_active=True).exists():
        return None
    return base + reverse("join", args=[invite(None, admin=True)])
