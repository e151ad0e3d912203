from django.apps import AppConfig


class RunsConfig(AppConfig):
    name = "heedful.web.runs"
    label = "runs"
