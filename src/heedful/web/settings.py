"""Django's settings. What differs between installations comes from the environment, which `serve.configure` fills.

HEEDFUL_LABEL_HOME: the folder of the database and the secret key. HEEDFUL_DATABASE_URL: another database than SQLite in it.
HEEDFUL_LABEL_HOSTS: the names under which the page is reached, by commas. HEEDFUL_LABEL_HTTPS: 1 where it is served over TLS.
HEEDFUL_RUNS: folders below which run directories are shown, as a list in JSON; none, and there are no pages of runs.
"""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import dj_database_url
from csp.constants import NONE, SELF
from django.core.management.utils import get_random_secret_key

from heedful.web.home import DATABASE, HOME, HOSTS, HTTPS, NAME, secret_path
from heedful.web.home import RUNS as RUNS_VARIABLE

home = Path(os.environ.get(HOME, "labels"))
https = os.environ.get(HTTPS) == "1"
RUNS = [Path(folder) for folder in json.loads(os.environ.get(RUNS_VARIABLE) or "[]")]

# Without the folder's own key (a check, a test) one for this process, so that there is no default to guess.
SECRET_KEY = secret_path(home).read_text().strip() if secret_path(home).exists() else get_random_secret_key()
DEBUG = False
ALLOWED_HOSTS = [host for host in os.environ.get(HOSTS, "localhost,127.0.0.1,[::1]").split(",") if host]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "csp",
    "heedful.web.labelling",
    "heedful.web.runs",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",  # a view that forgets to ask is closed
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "heedful.web.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "heedful.web.runs.served.served",
            ]
        },
    }
]

DATABASES: dict[str, Any] = {"default": dj_database_url.parse(os.environ.get(DATABASE) or f"sqlite:///{home.resolve() / NAME}")}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Who writes says so when the transaction begins, and the others wait for it: no "database is locked" half-way through.
    # An answer that was acknowledged is on the disk (FULL).
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
else:
    DATABASES["default"] |= {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "labelling.User"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"
# Ten wrong passwords close a name for a quarter of an hour. Not an address: a team shares one, and so do all behind a proxy.
SILENCED_SYSTEM_CHECKS = ["axes.W006"]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25
AXES_LOCKOUT_PARAMETERS = ["username"]
AXES_LOCKOUT_TEMPLATE = "labelling/locked.html"
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # else whoever goes on trying keeps the name closed for ever
AXES_DISABLE_ACCESS_LOG = True  # who was here when, from where: nobody needs to know
AXES_VERBOSE = False

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 14 * 24 * 3600
CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = https
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if https else None
SECURE_HSTS_SECONDS = 3600 * 24 * 30 if https else 0
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

STATIC_URL = "static/"
# plotly.js comes with the Python package.
STATICFILES_DIRS = [("plotly", Path(str(files("plotly"))) / "package_data")]
WHITENOISE_USE_FINDERS = True
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False
FILE_UPLOAD_MAX_MEMORY_SIZE = 5 * 2**20
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"axes": {"level": "ERROR"}},
}
